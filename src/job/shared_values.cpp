#include "job/shared_values.h"

#include <fmt/format.h>

#include "base/error.h"

namespace mixtune {

std::string SharedValues::set(int rank, const std::string& key, std::string value) {
  Used& used = used_.at(static_cast<size_t>(rank));
  const size_t bytes = key.size() + value.size();
  if (key.size() > kMaxKeyBytes) return fmt::format("the key of a value has {} bytes", key.size());
  if (values_.contains({rank, key})) return fmt::format("rank {} has set '{}' before", rank, printable(key));
  if (used.values >= kMaxOfRank || used.bytes + bytes > kMaxBytesOfRank)
    return fmt::format("rank {} has no room for '{}' beside its {} values of {} bytes", rank, printable(key),
                       used.values, used.bytes);
  ++used.values;
  used.bytes += bytes;
  values_.emplace(std::pair(rank, key), std::move(value));
  return "";
}

const std::string* SharedValues::find(int rank, const std::string& key) const {
  const auto found = values_.find({rank, key});
  return found == values_.end() ? nullptr : &found->second;
}

size_t SharedValues::bytes() const {
  size_t bytes = 0;
  for (const Used& used : used_) bytes += used.bytes;
  return bytes;
}

}  // namespace mixtune
