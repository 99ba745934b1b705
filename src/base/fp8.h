// 8-bit floating-point formats (OCP OFP8) and scales that are powers of two (OCP Microscaling's E8M0 among them).
// S is float or double; a GPU computes the same by the same code.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace mixtune {

// A format has the values m 2^(e - mantissa_bits), of integers m < 2^(mantissa_bits + 1) and e >= min_exponent, up to
// `largest`, and their negatives.
struct Fp8Format {
  int mantissa_bits, min_exponent;
  float largest;

  bool operator==(const Fp8Format&) const = default;
};

constexpr Fp8Format kE4M3 = {3, -6, 448};
constexpr Fp8Format kE5M2 = {2, -14, 57344};

// The exponents that a scale may have.
struct ScaleExponents {
  int smallest, largest;
};

constexpr ScaleExponents kE8M0 = {-127, 127};
constexpr ScaleExponents kFp32Normal = {-126, 127};

// The bits of an S, and where they have its exponent.
template <class S>
struct FloatBits {
  using Word = std::conditional_t<sizeof(S) == 4, uint32_t, uint64_t>;
  static constexpr int kMantissa = std::numeric_limits<S>::digits - 1, kBias = std::numeric_limits<S>::max_exponent - 1;

  static constexpr int exponent(S magnitude) {
    return static_cast<int>(std::bit_cast<Word>(magnitude) >> kMantissa) - kBias;
  }
  static constexpr Word mantissa(S magnitude) { return std::bit_cast<Word>(magnitude) & ((Word(1) << kMantissa) - 1); }
  static constexpr S power_of_two(int exponent) {  // of a normal number
    return std::bit_cast<S>(static_cast<Word>(exponent + kBias) << kMantissa);
  }
};

// The value of the format nearest to x, ties to the even m; beyond the largest it is that (saturating). A NaN or an
// infinity gives NaN: neither may hide.
template <class S>
constexpr S round_to(const Fp8Format& format, S x) {
  using Bits = FloatBits<S>;
  constexpr S kRoundsToInteger = S(3) / (2 * std::numeric_limits<S>::epsilon());  // added, and taken away again
  const S magnitude = std::min(std::abs(x), S(format.largest));
  const int exponent = std::max(Bits::exponent(magnitude), format.min_exponent);
  const S shift = kRoundsToInteger * Bits::power_of_two(exponent - format.mantissa_bits);
  const S rounded = (magnitude + shift) - shift;
  return std::isfinite(x) ? std::copysign(rounded, x) : std::numeric_limits<S>::quiet_NaN();
}

// What round_to(format, x / scale) loses, told without a division: magnitudes that become 0, and those beyond the
// largest value, not counting what is rounded down to that.
template <class S>
struct Fp8Losses {
  S to_zero, to_largest;

  constexpr explicit Fp8Losses(const Fp8Format& format)
      : to_zero(FloatBits<S>::power_of_two(format.mantissa_bits + 1 - format.min_exponent)),
        to_largest(S(format.largest) +
                   FloatBits<S>::power_of_two(FloatBits<S>::exponent(S(format.largest)) - format.mantissa_bits - 1)) {}

  constexpr bool flushes(S magnitude, S scale) const { return magnitude * to_zero <= scale; }
  constexpr bool saturates(S magnitude, S scale) const { return magnitude > to_largest * scale; }
};

// The least e of `exponents` for which amax <= format.largest 2^e, or the largest there is; 0 where amax is 0.
template <class S>
constexpr int scale_exponent(const Fp8Format& format, const ScaleExponents& exponents, S amax) {
  using Bits = FloatBits<S>;
  if (amax == 0) return 0;
  const S largest = format.largest;
  const int least = Bits::exponent(amax) - Bits::exponent(largest) + (Bits::mantissa(amax) > Bits::mantissa(largest));
  return std::clamp(least, exponents.smallest, exponents.largest);  // a subnormal amax is below the smallest anyway
}

// A scale is a power of two, the least with which nothing saturates, of the exponents of E8M0 (kMx) or of normal fp32
// numbers; or (kFp32) amax / the format's largest value, rounded to fp32.
enum class ScaleRule { kMx, kPowerOfTwo, kFp32 };

// The scale for a block's largest magnitude; 1 where that is 0.
template <class S>
constexpr S scale_of(const Fp8Format& format, ScaleRule rule, S amax) {
  if (amax == 0) return 1;
  if (rule == ScaleRule::kFp32)
    return std::max(static_cast<float>(amax / format.largest), std::numeric_limits<float>::min());
  const ScaleExponents exponents = rule == ScaleRule::kMx ? ScaleExponents(kE8M0) : ScaleExponents(kFp32Normal);
  const int e = scale_exponent(format, exponents, amax);
  return e < kFp32Normal.smallest ? FloatBits<S>::power_of_two(e + 1) / 2 : FloatBits<S>::power_of_two(e);
}

}  // namespace mixtune
