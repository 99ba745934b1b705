#include "kernels/moe/permute.h"

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/permute_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

int64_t most_rows(int64_t pairs, int64_t experts, const RowLimit& limit) {
  const int64_t limited = experts * align_rows(limit.most);
  if (limit.padded) return limited;
  // Every expert's rows may end with a gap.
  return std::min(limited, (pairs + experts * (kRowAlignment - 1)) / kRowAlignment * kRowAlignment);
}

int64_t suppose_rows(const Ctx& ctx, int64_t pairs, const Tensor& begin, const Tensor& count, const RowLimit& limit) {
  const int64_t experts = count.rows(), most = most_rows(pairs, experts, limit);
  const int64_t each = (pairs + experts - 1) / experts;
  const int64_t even = experts * align_rows(each);
  const int64_t rows = limit.padded || ctx.routing_share > kEvenRouting ? most : std::min(most, even);
  for (int64_t e = 0, given = 0; e < experts; ++e) {
    const int64_t own = std::min(rows - given, align_rows(limit.most));
    begin.as<int32_t>()[e] = static_cast<int32_t>(given);
    count.as<int32_t>()[e] = static_cast<int32_t>(own);
    given += own;
  }
  return rows;
}

namespace {

// What is so whatever the routing.
void write_padded_rows(const PermuteMap& args) {
  for (int64_t e = 0; e < args.count.rows(); ++e) {
    args.begin.as<int32_t>()[e] = static_cast<int32_t>(e * align_rows(args.limit.most));
    args.count.as<int32_t>()[e] = static_cast<int32_t>(args.limit.most);
  }
}

}  // namespace

void start_permute_map(Ctx& ctx, const PermuteMap& args) {
  MT_CHECK(args.row_of_slot.shape == args.experts.shape && args.begin.shape == args.count.shape);
  if (ctx.is_meta()) {
    suppose_rows(ctx, args.experts.elements(), args.begin, args.count, args.limit);
    return;
  }
  if (!ctx.like_gpu()) return cpu::permute_map(args, kRowAlignment);
  if (args.limit.padded) write_padded_rows(args);
  cuda::permute_map(ctx, args);
}

int64_t permute_map(Ctx& ctx, const PermuteMap& args) {
  start_permute_map(ctx, args);
  if (!args.limit.padded) wait(ctx);
  return mapped_rows(args);
}

int64_t mapped_rows(const PermuteMap& args) {
  const int64_t last = args.count.rows() - 1;
  return args.begin.as<int32_t>()[last] + align_rows(args.count.as<int32_t>()[last]);
}

void permute_invert(Ctx& ctx, const Tensor& row_of_slot, const Tensor& slot_of_row) {
  if (ctx.is_meta()) return;
  ctx.like_gpu() ? cuda::permute_invert(ctx, row_of_slot, slot_of_row) : cpu::permute_invert(row_of_slot, slot_of_row);
}

void permute_rows(Ctx& ctx, const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows) {
  MT_CHECK(rows.rows() == slot_of_row.elements() && rows.shape[1] == x.shape[1]);
  on_device(
      ctx, x.dtype, [&]<class S>(S) { cpu::permute_rows<S>(x, slot_of_row, k, rows); },
      [&] { cuda::permute_rows(ctx, x, slot_of_row, k, rows); });
}

void unpermute_rows(Ctx& ctx, const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y) {
  MT_CHECK(y.rows() == row_of_slot.rows() && y.shape[1] == rows.shape[1] && (!residual || residual.shape == y.shape));
  on_device(
      ctx, rows.dtype, [&]<class S>(S) { cpu::unpermute_rows<S>(rows, row_of_slot, residual, y); },
      [&] { cuda::unpermute_rows(ctx, rows, row_of_slot, residual, y); });
}

void number_rows(Ctx& ctx, const Tensor& slot_of_row, int64_t first, const Tensor& numbers) {
  MT_CHECK(numbers.dtype == DType::kI64 && numbers.rows() == slot_of_row.rows());
  if (ctx.is_meta()) return;
  ctx.like_gpu() ? cuda::number_rows(ctx, slot_of_row, first, numbers) : cpu::number_rows(slot_of_row, first, numbers);
}

void permute_weights(Ctx& ctx, const Tensor& weights, const Tensor& slot_of_row, const Tensor& row_weights) {
  MT_CHECK(row_weights.elements() == slot_of_row.elements());
  on_device(
      ctx, weights.dtype, [&]<class S>(S) { cpu::gather_scalars<S>(weights, slot_of_row, row_weights); },
      [&] { cuda::permute_weights(ctx, weights, slot_of_row, row_weights); });
}

void unpermute_weights(Ctx& ctx, const Tensor& row_weights, const Tensor& row_of_slot, const Tensor& weights) {
  MT_CHECK(weights.elements() == row_of_slot.elements());
  on_device(
      ctx, weights.dtype, [&]<class S>(S) { cpu::gather_scalars<S>(row_weights, row_of_slot, weights); },
      [&] { cuda::unpermute_weights(ctx, row_weights, row_of_slot, weights); });
}

}  // namespace mixtune
