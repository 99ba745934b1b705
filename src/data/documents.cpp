#include "data/documents.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "base/random.h"
#include "data/batch.h"

namespace mixtune {

bool Documents::append(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  ++records_;
  return append_piece(ids, labels);
}

bool Documents::append_piece(std::span<const int32_t> ids, std::span<const int32_t> labels) {
  MT_CHECK(ids.size() == labels.size() && records_ > 0);
  if (ids.empty()) return false;
  const auto targets = std::ranges::count_if(labels.subspan(1), [](int32_t label) { return label != kIgnoreTarget; });
  if (targets == 0) return false;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  labels_.insert(labels_.end(), labels.begin(), labels.end());
  offsets_.push_back(static_cast<int64_t>(ids_.size()));
  record_of_.push_back(records_ - 1);
  targets_ += targets;
  max_length_ = std::max(max_length_, static_cast<int64_t>(ids.size()));
  return true;
}

uint64_t Documents::digest() const {
  const auto bytes = [](const auto& values) {
    return std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  };
  uint64_t digest = random_key(0, bytes(offsets_));
  for (const std::string_view part : {bytes(ids_), bytes(labels_), bytes(record_of_)})
    digest = random_key(digest, part);
  return digest;
}

}  // namespace mixtune
