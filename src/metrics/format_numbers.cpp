#include "metrics/format_numbers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace mixtune {

std::string grouped(double number) {
  if (!std::isfinite(number)) return "-";
  std::string digits = fmt::format("{:.0f}", number);
  for (auto i = static_cast<int64_t>(digits.size()) - 3; i > (number < 0 ? 1 : 0); i -= 3)
    digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

std::string step_time(double milliseconds) {
  return milliseconds < 10 ? fmt::format("{:.1f}", milliseconds) : grouped(milliseconds);
}

std::string flops_rate(double tflops) {
  const bool large = tflops >= 1;
  const double number = large ? tflops : 1000 * tflops;
  return fmt::format("{} {}FLOP/s", number < 10 ? fmt::format("{:.1f}", number) : grouped(number), large ? 'T' : 'G');
}

std::string duration_text(double seconds) {
  if (!(seconds < 1e9)) return "-";
  const auto s = std::llround(std::max(seconds, 0.0));
  if (s >= 86400) return fmt::format("{}d {:02}:{:02}", s / 86400, s / 3600 % 24, s / 60 % 60);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace mixtune
