// Scalar helpers of the CPU twins.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace mixtune::cpu {

inline double exp(double x) {
  return std::exp(x);
}

// -87 and 88, hidden from the compiler: it would take e^-87 and e^88 out of the loop, compute e^x for any x, and choose
// afterwards; and arithmetic on what overflows or is subnormal takes 15 times as long (GCC 12).
extern const float kExpLowest, kExpHighest;

// e^x within 2 ulp, in a form that compilers vectorise: 2^n * e^r with |r| <= ln(2)/2 and a Taylor polynomial of degree
// 7. x below kExpLowest counts as that (e^x is then about 1.6e-38); above kExpHighest likewise.
inline float exp(float x) {
  x = x < kExpLowest ? kExpLowest : x;
  x = x > kExpHighest ? kExpHighest : x;
  constexpr float kRound = 0x1.8p23f;  // adding it leaves the nearest integer in the low mantissa bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln(2) in two parts
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto exponent = std::bit_cast<uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
}

// The largest of n > 0 values. It works in lanes: compilers keep the order of comparisons (because of NaN) and so leave
// a plain max reduction scalar.
template <class S>
S max_of(const S* x, int64_t n) {
  constexpr int64_t kLanes = 16;
  S lanes[kLanes];
  std::fill_n(lanes, kLanes, x[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  for (; i < n; ++i) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace mixtune::cpu
