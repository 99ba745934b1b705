#include "data/loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
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
  room_ = {
      .tokens = align_rows(checked_product(most_rows, source_->max_tokens(), kMaxTokens, "tokens of a micro-batch")),
      .documents = most_rows * source_->max_documents(),
      .weighted = source_->weighted()};
  const int64_t batches = std::min(micro_batches, (rows - 1) / rows_per_accumulation_ + 1);
  constexpr int64_t kMaxBytes = int64_t{1} << 46;
  checked_product(batches, static_cast<int64_t>(room_.bytes()), kMaxBytes, "bytes of host memory for a step");
  builder_.emplace(room_, memory, batches);
  batches_.reserve(static_cast<size_t>(batches));
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
    const Rows own = rows_of(all, share_.rank);
    builder_->begin(static_cast<int64_t>(batches_.size()));
    const int64_t before = count_other_rows({all.begin, own.begin});  // in the order of the rows
    read(own);
    const int64_t after = count_other_rows({own.end, all.end});
    Batch& batch = batches_.emplace_back(builder_->finish(before + after));
    batch.first_token = step_.live_tokens + before;
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
  step_.squared_lengths += counts.squared_lengths;
}

void Loader::read(Rows rows) {
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const RowCounts counts = source_->read(row, builder_->room());
    builder_->add(counts);
    add(counts);
  }
}

}  // namespace mixtune
