#include "base/duration.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "base/error.h"

namespace mixtune {

namespace {

[[noreturn]] void refuse(const std::string& text) {
  throw UserError("", fmt::format("'{}' is not a time", printable(text)), "write one such as 90s, 45m, 2h or 2:30:00");
}

double number(std::string_view digits, const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  constexpr double kMost = 1e6;
  if (error != std::errc() || end != digits.data() + digits.size() || !(value >= 0 && value <= kMost)) refuse(text);
  return value;
}

// "[D-][H:]M:S"
double parse_clock(std::string_view rest, const std::string& text) {
  double days = 0, seconds = 0;
  if (const size_t dash = rest.find('-'); dash != rest.npos) {
    days = number(rest.substr(0, dash), text);
    rest.remove_prefix(dash + 1);
  }
  int parts = 0;
  for (bool more = true; more; ++parts) {
    const size_t colon = rest.find(':');
    more = colon != rest.npos;
    seconds = seconds * 60 + number(rest.substr(0, colon), text);
    if (more) rest.remove_prefix(colon + 1);
  }
  if (parts > 3) refuse(text);
  return days * 86400 + seconds;
}

}  // namespace

double parse_duration(const std::string& text) {
  if (text.empty()) refuse(text);
  if (text.find(':') != text.npos) return parse_clock(text, text);
  const std::string_view digits = std::string_view(text).substr(0, text.size() - 1);
  const char unit = text.back();
  const double factor = unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600 : unit == 'd' ? 86400 : 0;
  if (factor == 0) refuse(text);
  return factor * number(digits, text);
}

}  // namespace mixtune
