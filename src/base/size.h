// Sizes in bytes, as people write them.
#pragma once

#include <cstdint>
#include <string_view>

namespace mixtune {

// "5GB" -> 5'000'000'000: a whole number and KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB. Throws UserError,
// without a place: the caller knows which key it came from. Refuses a number without a unit, as nobody can tell whether
// it means bytes (transformers') or gigabytes.
uint64_t parse_size(std::string_view text);

}  // namespace mixtune
