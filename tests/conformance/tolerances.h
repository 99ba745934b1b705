// Tolerances of element-wise ops and row sums. A result that is rounded to bf16 is up to one epsilon (2^-8, half a unit
// of its last place) off, and what fp32 adds is small beside it: kRounded. In fp32 each operation adds at most half an
// epsilon of its result; a sum of n terms in another order adds a random walk of them, sum_epsilons(n).
#pragma once

#include <cmath>

#include "conformance/conformance.h"

namespace mixtune {

inline constexpr double kRounded = 1.125;

inline double sum_epsilons(int64_t n) {
  return 4 + std::sqrt(static_cast<double>(n)) / 4;
}

// The error of sums of n products with random signs: rounding errors of half an epsilon add like a random walk, on both
// sides; a partial sum is on average half as large as the largest result.
inline double walk(int64_t n) {
  return 2 + std::sqrt(static_cast<double>(n)) / 2;
}

inline double by_dtype(const Conformance& c, double fp32_epsilons, double bf16_epsilons = kRounded) {
  return c.dtype() == DType::kF32 ? fp32_epsilons : bf16_epsilons;
}

}  // namespace mixtune
