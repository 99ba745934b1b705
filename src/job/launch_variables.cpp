#include "job/launch_variables.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"

namespace mixtune {

std::string LaunchVariables::get(const char* name) const {
  const char* value = getenv_(name);
  return value == nullptr ? "" : value;
}

int LaunchVariables::number_or_none(const char* name) const {
  const std::string text = get(name);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0 ? value : -1;
}

std::string LaunchVariables::require(const char* name, std::string_view because, std::string_view mend) const {
  std::string value = get(name);
  if (value.empty()) throw UserError(name, fmt::format("is not set, although {}", because), mend);
  return value;
}

int LaunchVariables::number(const char* name, int lowest, int highest, std::string_view mend) const {
  const int value = number_or_none(name);
  if (value < lowest || value > highest)
    throw UserError(name, fmt::format("is '{}', not a number from {} to {}", printable(get(name)), lowest, highest),
                    mend);
  return value;
}

std::string LaunchVariables::list(std::initializer_list<const char*> names) const {
  std::string text;
  for (const char* name : names)
    if (has(name)) text += fmt::format("{}{}={}", text.empty() ? "" : ", ", name, printable(get(name)));
  return text;
}

}  // namespace mixtune
