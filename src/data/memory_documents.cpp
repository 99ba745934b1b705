#include "data/memory_documents.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "base/error.h"
#include "data/batch.h"

namespace mixtune {

void MemoryDocuments::add(std::span<const int32_t> ids, std::span<const int32_t> labels, int64_t targets) {
  MT_CHECK(appended().records <= std::numeric_limits<uint32_t>::max());
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  std::ranges::transform(labels, std::back_inserter(trained_), [](int32_t label) { return label != kIgnoreTarget; });
  offsets_.push_back(static_cast<int64_t>(ids_.size()));
  targets_.push_back(static_cast<uint32_t>(targets));
  record_of_.push_back(static_cast<uint32_t>(appended().records - 1));
}

void MemoryDocuments::read(int64_t d, std::span<int32_t> ids, std::span<int32_t> labels) const {
  std::copy_n(ids_.begin() + offsets_[d], length(d), ids.begin());
  for (int64_t i = 0; i < length(d); ++i) labels[i] = trained_[offsets_[d] + i] ? ids[i] : kIgnoreTarget;
}

}  // namespace mixtune
