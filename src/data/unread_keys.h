// UnreadKeys: the keys of a file's records that no format reads, with how many objects have them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace mixtune {

class UnreadKeys {
 public:
  void add(std::string_view key) { ++slot(key); }
  // Adds the counts. A file's first keys are told apart; beyond these, different keys are counted together.
  void add(const UnreadKeys& more);

  bool empty() const { return counts_.empty(); }
  // "id (200), source (200), and 7 more": the most frequent first, names in order where they are equally so.
  std::string text() const;

 private:
  int64_t& slot(std::string_view key);

  std::map<std::string, int64_t, std::less<>> counts_;
  int64_t others_ = 0;  // keys beyond those told apart
};

}  // namespace mixtune
