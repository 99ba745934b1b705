// Rounding to fp16; base/dtype.h has the type and its exact way back.
#pragma once

#include <bit>
#include <cstdint>

#include "base/dtype.h"

namespace mixtune {

// Rounds to nearest, ties to even. From 65,520 on the result is infinite; a NaN stays a NaN.
inline F16 to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return {static_cast<uint16_t>(sign | 0x7E00)};
  if (magnitude >= 0x477FF000) return {static_cast<uint16_t>(sign | 0x7C00)};  // from 65,520 on
  if (magnitude < 0x38800000) {  // subnormal: below 2^-14, in units of 2^-24, rounded by the addition's own rounding
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5f)))};
  }
  const uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
}

}  // namespace mixtune
