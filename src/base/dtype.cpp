#include "base/dtype.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace mixtune {

size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kU8:
    case DType::kF8E4M3:
    case DType::kF8E8M0:
      return 1;
  }
  MT_CHECK(false);
}

std::string_view dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "fp64";
    case DType::kF32:
      return "fp32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "fp16";
    case DType::kI64:
      return "int64";
    case DType::kI32:
      return "int32";
    case DType::kU8:
      return "uint8";
    case DType::kF8E4M3:
      return "e4m3";
    case DType::kF8E8M0:
      return "e8m0";
  }
  MT_CHECK(false);
}

float to_float(F16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1F;
  const uint32_t mantissa = x.bits & 0x3FF;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in fp32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide = exponent == 31 ? 0xFF : exponent + (127 - 15);
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

float to_float(E4M3 x) {
  const int exponent = (x.bits >> 3) & 0xF, mantissa = x.bits & 0x7;
  if (exponent == 0xF && mantissa == 0x7) return std::numeric_limits<float>::quiet_NaN();
  const float steps = static_cast<float>(exponent == 0 ? mantissa : mantissa + 8);
  const float magnitude = std::ldexp(steps, std::max(exponent, 1) - 10);
  return (x.bits & 0x80) != 0 ? -magnitude : magnitude;
}

float to_float(E8M0 x) {
  return x.bits == 0xFF ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, x.bits - 127);
}

}  // namespace mixtune
