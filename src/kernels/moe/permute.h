// Moving tokens to rows grouped by expert, and back. T tokens, k slots a token, R rows, E experts, H columns.
//
// Rows are ordered by (expert, token). Each expert's rows begin at a multiple of kRowAlignment; the gap rows between
// hold no token.
#pragma once

#include <limits>

#include "tensor/ctx.h"

namespace mixtune {

// How many rows an expert may have, where that is limited. padded: it has so many, whatever it gets; the last of them
// hold no token.
struct RowLimit {
  int64_t most = kNone;
  bool padded = false;

  static constexpr int64_t kNone = std::numeric_limits<int32_t>::max();
  bool is_set() const { return most < kNone; }
};

// The most rows that `pairs` take, gaps included: a multiple of kRowAlignment.
int64_t most_rows(int64_t pairs, int64_t experts, const RowLimit& limit);

// Maps experts [T, k] int32 (-1: no expert) to rows. Writes begin and count [E] int32, the rows of each expert, in
// memory that the host reads (ctx.host_stack); and row_of_slot [T, k] int32, the row of each pair or -1. Returns R, a
// multiple of kRowAlignment: on a GPU the host waits here, by an event, for the counts, where the limit is not padded.
// No expert has more pairs than the limit; of one that is padded, rows behind them are gap rows, though they count.
struct PermuteMap {
  Tensor experts;
  Tensor begin, count, row_of_slot;
  RowLimit limit = {};
};
int64_t permute_map(Ctx& ctx, const PermuteMap& args);

// Maps without waiting: begin and count are there, and mapped_rows gives R, once the host has waited for the ctx.
void start_permute_map(Ctx& ctx, const PermuteMap& args);
int64_t mapped_rows(const PermuteMap& args);

// Supposes, on kMeta, which has no routing, that `pairs` are routed to the experts of begin and count [E], and writes
// those: as many rows as an even routing has, or with ctx.routing_share above that as there can be, the first experts'
// as far as the limit lets them, which leaves the largest to what takes an expert at a time. Returns R.
int64_t suppose_rows(const Ctx& ctx, int64_t pairs, const Tensor& begin, const Tensor& count, const RowLimit& limit);

// Writes slot_of_row [R] int32: the flat pair t * k + slot that stands in each row, -1 in gap rows.
void permute_invert(Ctx& ctx, const Tensor& row_of_slot, const Tensor& slot_of_row);

// Writes rows [R, H]: row r = x[slot_of_row[r] / k], gap rows 0.
void permute_rows(Ctx& ctx, const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows);

// Writes y[t] = the sum over slots of rows[row_of_slot[t, slot]], in the order of slots, plus residual[t] if there is
// one. y may be residual.
void unpermute_rows(Ctx& ctx, const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y);

// Writes numbers [R] int64: first + the flat pair that stands in each row, -1 in gap rows.
void number_rows(Ctx& ctx, const Tensor& slot_of_row, int64_t first, const Tensor& numbers);

// Writes routing weights [T, k] by row, [R], 0 in gap rows; unpermute_weights writes them back, 0 for absent pairs.
void permute_weights(Ctx& ctx, const Tensor& weights, const Tensor& slot_of_row, const Tensor& row_weights);
void unpermute_weights(Ctx& ctx, const Tensor& row_weights, const Tensor& row_of_slot, const Tensor& weights);

}  // namespace mixtune
