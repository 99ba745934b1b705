// near_normal: the random normal number of two words, nearly, as code that compilers turn into vector instructions.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace mixtune {

// How far near_normal may be from random_normal, as a share of `radius`: 32 times what its parts below add up to, and
// what a libm is off.
constexpr double kNearNormalError = 0x1p-42;

struct NearNormal {
  double value, radius;
};

// x as a double. The compiler's own conversion has no vector instruction before AVX-512.
inline double exact_double(uint64_t x) {  // x < 2^53
  const uint64_t low = x & 0xFFFFFFFF, high = x >> 32;
  return (std::bit_cast<double>(0x4330000000000000 | low) - 0x1p52) +
         (std::bit_cast<double>(0x4530000000000000 | high) - 0x1p84);
}

// log(z) of a normal z in (0, 1], to 2^-48 of it: z = 2^e (1 + f), and log(1 + f) = 2 artanh(s), s = f / (2 + f).
// |s| < 0.172, so that what the series leaves out is less than 2^-49 of it.
inline double near_log(double z) {
  constexpr uint64_t kRootOfHalf = 0x3FE6A09E667F3BCD;
  const uint64_t bits = std::bit_cast<uint64_t>(z), biased = (bits - kRootOfHalf + (uint64_t{1023} << 52)) >> 52;
  const double e = std::bit_cast<double>(0x4330000000000000 | biased) - (0x1p52 + 1023);
  const double f = std::bit_cast<double>(bits - ((biased - 1023) << 52)) - 1, s = f / (2 + f), t = s * s;
  double sum = 1.0 / 17;
  for (int k = 15; k > 0; k -= 2) sum = sum * t + 1.0 / k;
  return e * std::numbers::ln2 + 2 * s * sum;
}

// cos(2 pi v), v in [0, 1), to 2^-49: sin(2 pi (|v - 1/2| - 1/4)), whose argument is exact but for 2 pi, by Taylor's
// series up to x^19, which leaves out less than 2^-51.
inline double near_cos_of_turns(double v) {
  constexpr std::array<double, 10> kSeries = [] {
    std::array<double, 10> series{1};
    for (int k = 1; k < 10; ++k) series[k] = -series[k - 1] / (2 * k * (2 * k + 1));
    return series;
  }();
  const double x = 2 * std::numbers::pi * (std::abs(v - 0.5) - 0.25), t = x * x;
  double sum = kSeries[9];
  for (int k = 8; k >= 0; --k) sum = sum * t + kSeries[k];
  return x * sum;
}

// a, b: the random bits of indices 2 i and 2 i + 1 make random_normal(key, i).
inline NearNormal near_normal(uint64_t a, uint64_t b) {
  const double radius = std::sqrt(-2 * near_log(1 - exact_double(a >> 11) * 0x1p-53));
  return {radius * near_cos_of_turns(exact_double(b >> 11) * 0x1p-53), radius};
}

}  // namespace mixtune
