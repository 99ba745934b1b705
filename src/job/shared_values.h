// SharedValues: the values that ranks of a job leave for each other. A value belongs to the rank that sets it, and
// stays as it was set; all of them together are bounded.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace mixtune {

class SharedValues {
 public:
  static constexpr size_t kMaxKeyBytes = 1 << 10;
  static constexpr size_t kMaxOfRank = 4096;           // the most values of one rank
  static constexpr size_t kMaxBytesOfRank = 16 << 20;  // and bytes of their keys and values together

  explicit SharedValues(int ranks) : used_(static_cast<size_t>(ranks)) {}

  // Sets the value and returns ""; or returns why it may not, as one line.
  std::string set(int rank, const std::string& key, std::string value);
  // Null where it is not set yet.
  const std::string* find(int rank, const std::string& key) const;

  size_t bytes() const;  // of all keys and values

 private:
  struct Used {
    size_t values = 0, bytes = 0;
  };

  std::map<std::pair<int, std::string>, std::string> values_;
  std::vector<Used> used_;
};

}  // namespace mixtune
