// LaunchVariables: the environment of a process, as what launched it has left it.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>

namespace mixtune {

using GetEnv = std::function<const char*(const char*)>;

class LaunchVariables {
 public:
  explicit LaunchVariables(const GetEnv& getenv) : getenv_(getenv) {}

  // "" where it is not set; one that is set to nothing counts as not set.
  std::string get(const char* name) const;
  bool has(const char* name) const { return !get(name).empty(); }
  // -1 where it is no number that an int of at least 0 holds.
  int number_or_none(const char* name) const;

  // Both throw UserError, which says `mend`, where it is not so: that it is set, although `because` is; that it is a
  // number within the bounds.
  std::string require(const char* name, std::string_view because, std::string_view mend) const;
  int number(const char* name, int lowest, int highest, std::string_view mend) const;

  // "RANK=0, WORLD_SIZE=8", of those that are set, for messages.
  std::string list(std::initializer_list<const char*> names) const;

 private:
  const GetEnv& getenv_;
};

}  // namespace mixtune
