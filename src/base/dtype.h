// Element types, and the exact conversions between them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace mixtune {

enum class DType : uint8_t { kF64, kF32, kBF16, kF16, kI64, kI32, kU8, kF8E4M3, kF8E8M0 };

size_t dtype_size(DType dtype);
std::string_view dtype_name(DType dtype);  // "fp32", "bf16", ...

// The dtype in which a model holds statistics (norms, softmax, router): never less than fp32.
constexpr DType statistics_dtype(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

// The upper half of an fp32.
struct BF16 {
  uint16_t bits;
};

// IEEE 754 binary16; read from checkpoints, never computed with.
struct F16 {
  uint16_t bits;
};

// A code of fp8.h's kE4M3.
struct E4M3 {
  uint8_t bits;
};

// An MX block's scale, 2^(bits - 127); of 255, NaN.
struct E8M0 {
  uint8_t bits;
};

inline float to_float(BF16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

float to_float(F16 x);
float to_float(E4M3 x);
float to_float(E8M0 x);

// Rounds to nearest, ties to even; a NaN stays a NaN.
inline BF16 to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)};
}

// Stochastic rounding: up (in magnitude) with the probability of the bits that are cut off, in units of 2^-16 of the
// last place. `bits` are 16 random ones; higher ones are ignored. The mean over them is x. Above the largest bf16 it
// may reach infinity; a NaN stays a NaN.
constexpr uint16_t stochastic_bf16_bits(uint32_t fp32_bits, uint32_t bits) {
  const uint32_t magnitude = fp32_bits & 0x7FFFFFFF;
  if (magnitude >= 0x7F800000) return static_cast<uint16_t>((fp32_bits >> 16) | (magnitude > 0x7F800000 ? 0x40 : 0));
  return static_cast<uint16_t>((fp32_bits + (bits & 0xFFFF)) >> 16);
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<F16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct DTypeOf<E4M3> {
  static constexpr DType value = DType::kF8E4M3;
};
template <>
struct DTypeOf<E8M0> {
  static constexpr DType value = DType::kF8E8M0;
};

}  // namespace mixtune
