#include "data/packed_rows.h"

#include <algorithm>

#include "base/error.h"
#include "data/label.h"

namespace mixtune {

namespace {

constexpr int64_t kShortestDocument = 2;  // one token to see, one to predict

}  // namespace

PackedRows::PackedRows(const Documents& documents, const PlanOptions& options)
    : documents_(documents),
      rows_(documents, options),
      max_tokens_(options.packing ? std::min(options.max_seq_length, documents.tokens()) : documents.max_length()),
      max_documents_(options.packing ? max_tokens_ / kShortestDocument : 1) {
  if (weighted()) weights_.resize(static_cast<size_t>(documents.max_length()));
  static_assert(kEndless == RowSequence::kEndless);
}

void PackedRows::add(int64_t d, int64_t targets, std::span<const float> weights, RowCounts& counts) const {
  const int64_t length = documents_.length(d);
  counts.tokens += length;
  counts.squared_lengths += static_cast<double>(length) * static_cast<double>(length);
  counts.targets += targets;
  counts.weight += weighted() ? target_weight(weights) : static_cast<double>(targets);
  ++counts.documents;
}

RowCounts PackedRows::count(int64_t row) {
  RowCounts counts;
  for (const int64_t d : rows_.row(row)) {
    const std::span<float> weights =
        std::span(weights_).first(weighted() ? static_cast<size_t>(documents_.length(d)) : 0);
    if (weighted()) documents_.read_weights(d, weights);
    add(d, documents_.targets(d), weights, counts);
  }
  return counts;
}

RowCounts PackedRows::read(int64_t row, const RowRoom& room) {
  RowCounts counts;
  for (const int64_t d : rows_.row(row)) {
    const auto begin = static_cast<size_t>(counts.tokens), length = static_cast<size_t>(documents_.length(d));
    const std::span<int32_t> labels = room.targets.subspan(begin, length);
    documents_.read(d, room.ids.subspan(begin, length), labels);
    room.begins[static_cast<size_t>(counts.documents)] = static_cast<int32_t>(begin);
    const std::span<float> weights = room.weights.subspan(weighted() ? begin : 0, weighted() ? length : 0);
    if (weighted()) documents_.read_weights(d, weights);
    const auto trained = [](int32_t label) {
      return label != kIgnoreTarget;
    };
    add(d, std::ranges::count_if(labels.subspan(1), trained), weights, counts);
    shift_labels(labels, weights);
  }
  return counts;
}

}  // namespace mixtune
