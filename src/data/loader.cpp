#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "data/label.h"
#include "data/packed_rows.h"

namespace mixtune {

namespace {

int64_t checked_product(int64_t a, int64_t b, int64_t limit, const char* what) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > limit)
    throw UserError("per_device_train_batch_size", fmt::format("{} x {} {} are too many", a, b, what),
                    "lower per_device_train_batch_size, gradient_accumulation_steps or max_seq_length");
  return product;
}

constexpr int64_t round_up(int64_t tokens) {
  return (tokens + kRowAlignment - 1) / kRowAlignment * kRowAlignment;
}

}  // namespace

Loader::Loader(const Documents& documents, const PlanOptions& options, int64_t rows_per_micro_batch,
               int64_t micro_batches, HostMemory memory, Share share)
    : Loader(std::make_unique<PackedRows>(documents, options), rows_per_micro_batch, micro_batches, memory, share) {}

Loader::Loader(std::unique_ptr<RowSource> source, int64_t rows_per_micro_batch, int64_t micro_batches,
               HostMemory memory, Share share)
    : source_(std::move(source)), share_(share), rows_per_micro_batch_(rows_per_micro_batch) {
  MT_CHECK(rows_per_micro_batch > 0 && micro_batches > 0 && share.rank >= 0 && share.rank < share.ranks);
  rows_per_accumulation_ = checked_product(rows_per_micro_batch, share.ranks, RowSource::kEndless, "rows");
  rows_per_step_ = checked_product(rows_per_accumulation_, micro_batches, RowSource::kEndless, "rows");
  const int64_t rows = source_->rows();
  steps_ = rows / rows_per_step_ + (rows % rows_per_step_ > 0);

  const int64_t most_rows = std::min(rows_per_micro_batch, std::max<int64_t>(rows, 1));
  constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max() - kRowAlignment;
  max_tokens_ = round_up(checked_product(most_rows, source_->max_tokens(), kMaxTokens, "tokens of a micro-batch"));
  max_documents_ = most_rows * source_->max_documents();

  const int64_t batches = std::min(micro_batches, (rows - 1) / rows_per_accumulation_ + 1);
  const auto bytes = [](int64_t n) {
    return align_up(static_cast<size_t>(n) * sizeof(int32_t));
  };
  const bool weighted = source_->weighted();
  const size_t batch_bytes =
      (weighted ? 7 : 6) * bytes(max_tokens_) + bytes(max_tokens_ + 1) + bytes(max_documents_ + 1);
  constexpr int64_t kMaxBytes = int64_t{1} << 46;
  const int64_t all_bytes =
      checked_product(batches, static_cast<int64_t>(batch_bytes), kMaxBytes, "bytes of host memory for a step");
  arena_ = std::make_unique<Arena>("batches", Device{}, static_cast<size_t>(all_bytes), memory);
  const auto allocate = [&](const char* name, int64_t n) {
    return arena_->allocate(name, {n}, DType::kI32).as<int32_t>();
  };
  for (int64_t i = 0; i < batches; ++i)
    buffers_.push_back(
        {.ids = allocate("ids", max_tokens_),
         .targets = allocate("targets", max_tokens_),
         .positions = allocate("positions", max_tokens_),
         .target_rows = allocate("target rows", max_tokens_),
         .doc_offsets = allocate("document offsets", max_documents_ + 1),
         .sorted_ids = allocate("sorted ids", max_tokens_),
         .id_begins = allocate("begins by id", max_tokens_ + 1),
         .id_rows = allocate("rows by id", max_tokens_),
         .weights = weighted ? arena_->allocate("weights", {max_tokens_}, DType::kF32).as<float>() : nullptr});
  batches_.reserve(buffers_.size());
  sorted_.resize(max_tokens_);
  targets_.resize(source_->max_tokens());
  if (weighted) weights_.resize(source_->max_tokens());
}

Loader::Rows Loader::rows_of(Rows accumulation_step, int rank) const {
  const int64_t begin = std::min(accumulation_step.begin + rank * rows_per_micro_batch_, accumulation_step.end);
  return {begin, std::min(begin + rows_per_micro_batch_, accumulation_step.end)};
}

const Step& Loader::load(int64_t step) {
  MT_CHECK(step >= 0 && step < steps_);
  const int64_t first = step * rows_per_step_;
  const int64_t last = first + std::min(rows_per_step_, source_->rows() - first);
  step_ = {};
  batches_.clear();
  for (int64_t row = first; row < last; row += rows_per_accumulation_) {
    const Rows all = {row, std::min(row + rows_per_accumulation_, last)};
    int64_t others = count_other_rows({all.begin, rows_of(all, share_.rank).begin});  // in the order of the rows
    Batch& batch = batches_.emplace_back(fill(buffers_[batches_.size()], rows_of(all, share_.rank)));
    others += count_other_rows({rows_of(all, share_.rank).end, all.end});
    batch.step_tokens = batch.live_tokens + others;
    step_.live_tokens += batch.step_tokens;
  }
  step_.micro_batches = batches_;
  step_.epoch = source_->epochs_done(last);
  return step_;
}

int64_t Loader::count_other_rows(Rows rows) {
  int64_t tokens = 0;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const RowCounts counts = source_->count(row);
    add(counts);
    tokens += counts.tokens;
  }
  return tokens;
}

void Loader::add(const RowCounts& counts) {
  step_.target_tokens += counts.targets;
  step_.target_weight += counts.weight;
  step_.documents += counts.documents;
}

Batch Loader::fill(const Buffers& buffers, Rows of) {
  int64_t live = 0, targets = 0, documents = 0;
  const auto put = [&](int64_t row) {
    const RowRoom room = {.ids = {buffers.ids + live, targets_.size()},
                          .targets = targets_,
                          .weights = weights_,
                          .begins = {buffers.doc_offsets + documents, static_cast<size_t>(source_->max_documents())}};
    const RowCounts counts = source_->read(row, room);
    add(counts);
    const auto first = static_cast<int32_t>(live);
    const std::span<int32_t> begins = room.begins.first(static_cast<size_t>(counts.documents));
    for (int32_t& begin : begins) begin += first;
    for (size_t next = 0; live < first + counts.tokens; ++live) {
      if (next < begins.size() && begins[next] == live) ++next;
      buffers.positions[live] = static_cast<int32_t>(live) - begins[next - 1];
      const auto in_row = static_cast<size_t>(live - first);
      if (targets_[in_row] == kIgnoreTarget) continue;
      buffers.target_rows[targets] = static_cast<int32_t>(live);
      if (buffers.weights) buffers.weights[targets] = weights_[in_row];
      buffers.targets[targets++] = targets_[in_row];
    }
    documents += counts.documents;
  };
  for (int64_t row = of.begin; row < of.end; ++row) put(row);
  buffers.doc_offsets[documents] = static_cast<int32_t>(live);
  const int64_t rows = round_up(std::max<int64_t>(live, 1));
  std::fill(buffers.ids + live, buffers.ids + rows, 0);
  std::fill(buffers.positions + live, buffers.positions + rows, 0);
  const Tensor doc_offsets = host_tensor(buffers.doc_offsets, {documents + 1});
  return {.ids = host_tensor(buffers.ids, {rows}),
          .positions = host_tensor(buffers.positions, {rows}),
          .target_rows = host_tensor(buffers.target_rows, {targets}),
          .targets = host_tensor(buffers.targets, {targets}),
          .weights = buffers.weights ? host_tensor(buffers.weights, {targets}) : Tensor{},
          .doc_offsets = doc_offsets,
          .rows_by_id = index_ids(host_tensor(buffers.ids, {live}),
                                  {host_tensor(buffers.sorted_ids, {live}), host_tensor(buffers.id_begins, {live + 1}),
                                   host_tensor(buffers.id_rows, {live})},
                                  sorted_.data()),
          .host_doc_offsets = doc_offsets,
          .live_tokens = live};
}

}  // namespace mixtune
