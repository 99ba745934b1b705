// CPU twin of cast.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cast.h"

namespace mixtune::cpu {

// Rounds x to fp32 so that a further rounding to bf16 is as if from x: an inexact result has an odd last bit.
inline float round_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (std::isnan(x) || static_cast<double>(nearest) == x) return nearest;
  const auto bits = std::bit_cast<uint32_t>(nearest);
  const uint32_t truncated = bits - (std::abs(static_cast<double>(nearest)) > std::abs(x) ? 1 : 0);
  return std::bit_cast<float>(truncated | 1);
}

template <class From, class To>
To converted(From x) {
  if constexpr (!std::is_floating_point_v<From>)
    return converted<float, To>(to_float(x));
  else if constexpr (!std::is_same_v<To, BF16>)
    return static_cast<To>(x);
  else if constexpr (std::is_same_v<From, double>)
    return to_bf16(round_to_odd(x));
  else
    return to_bf16(x);
}

template <class From, class To>
void cast(const Tensor& from, const Tensor& to) {
  const From* x = from.as<From>();
  To* y = to.as<To>();
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < to.elements(); ++i) y[i] = converted<From, To>(x[i]);
}

template <class From>
void cast_from(const Tensor& from, const Tensor& to) {
  if (to.dtype == DType::kF64) return cast<From, double>(from, to);
  if (to.dtype == DType::kBF16) return cast<From, BF16>(from, to);
  cast<From, float>(from, to);
}

inline void cast(const Tensor& from, const Tensor& to) {
  switch (from.dtype) {
    case DType::kF64:
      return cast_from<double>(from, to);
    case DType::kBF16:
      return cast_from<BF16>(from, to);
    case DType::kF16:
      return cast_from<F16>(from, to);
    default:
      return cast_from<float>(from, to);
  }
}

}  // namespace mixtune::cpu
