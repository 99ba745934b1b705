#include "data/memory_documents.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "base/error.h"
#include "data/batch.h"
#include "data/label.h"

namespace mixtune {

void MemoryDocuments::add(const Added& document) {
  const auto& [ids, labels, weights, targets] = document;
  MT_CHECK(appended().records <= std::numeric_limits<uint32_t>::max());
  if (!weights.empty()) {
    weights_.resize(ids_.size(), 1);
    weights_.insert(weights_.end(), weights.begin(), weights.end());
  }
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  std::ranges::transform(labels, std::back_inserter(trained_), [](int32_t label) { return label != kIgnoreTarget; });
  if (!weights_.empty()) weights_.resize(ids_.size(), 1);
  offsets_.push_back(static_cast<int64_t>(ids_.size()));
  targets_.push_back(static_cast<uint32_t>(targets));
  record_of_.push_back(static_cast<uint32_t>(appended().records - 1));
}

void MemoryDocuments::read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const {
  std::copy_n(ids_.begin() + offsets_[d], length(d), ids.begin());
  for (int64_t i = 0; i < length(d); ++i) labels[i] = trained_[offsets_[d] + i] ? ids[i] : kIgnoreTarget;
}

void MemoryDocuments::read_weights(int64_t d, std::span<float> weights) const {
  for (int64_t i = 0, at = offsets_[d]; i < length(d); ++i, ++at)
    weights[i] = !trained_[at] ? 0 : weights_.empty() ? 1 : weights_[at];
}

}  // namespace mixtune
