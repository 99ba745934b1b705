#include "base/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "base/error.h"

namespace mixtune {

namespace {

struct Unit {
  std::string_view name;
  uint64_t bytes;
};
constexpr auto kUnits = std::to_array<Unit>({{"KB", 1'000},
                                             {"MB", 1'000'000},
                                             {"GB", 1'000'000'000},
                                             {"TB", 1'000'000'000'000},
                                             {"KiB", 1ull << 10},
                                             {"MiB", 1ull << 20},
                                             {"GiB", 1ull << 30},
                                             {"TiB", 1ull << 40}});

}  // namespace

uint64_t parse_size(std::string_view text) {
  uint64_t number = 0, bytes = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view name(rest, static_cast<size_t>(text.data() + text.size() - rest));
  if (error == std::errc() && name.empty()) {
    constexpr uint64_t kManyGiB = 1 << 20;  // a larger number was meant as bytes
    throw UserError("", fmt::format("'{}' has no unit", printable(text)),
                    number > 0 && number < kManyGiB ? fmt::format("write {}GiB", number)
                                                    : "write a whole number and a unit: 500MB, 5GB or 4GiB");
  }
  const auto unit = std::ranges::find(kUnits, name, &Unit::name);
  if (error != std::errc() || unit == kUnits.end() || __builtin_mul_overflow(number, unit->bytes, &bytes) || bytes == 0)
    throw UserError("", fmt::format("'{}' is not a size", printable(text)),
                    "write a whole number and a unit: 500MB, 5GB or 4GiB");
  return bytes;
}

}  // namespace mixtune
