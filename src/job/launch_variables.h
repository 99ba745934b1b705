// LaunchVariables: the environment of a process, as its launcher has left it.
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

  // "" where it is not set; an empty variable counts as not set.
  std::string get(const char* name) const;
  bool has(const char* name) const { return !get(name).empty(); }
  // -1 where the text is not a number that fits an int of at least 0.
  int number_or_none(const char* name) const;

  // These throw UserError, which says `mend`: where the variable is not set, although `because` is; where it is no
  // number within the bounds.
  std::string require(const char* name, std::string_view because, std::string_view mend) const;
  int number(const char* name, int lowest, int highest, std::string_view mend) const;

  // "RANK=0, WORLD_SIZE=8": those of the names that are set, for messages.
  std::string list(std::initializer_list<const char*> names) const;

 private:
  const GetEnv& getenv_;
};

}  // namespace mixtune
