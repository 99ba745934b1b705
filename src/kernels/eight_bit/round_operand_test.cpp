#include "kernels/eight_bit/round_operand.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "base/dtype.h"
#include "kernels/eight_bit/testing.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

// All finite values of an 8-bit format, from its definition by bits: sign, exponent, mantissa.
std::set<double> values_of(int exponent_bits, int mantissa_bits, double largest) {
  std::set<double> values;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  for (int code = 0; code < 256; ++code) {
    const int sign = code >> 7, exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1),
              mantissa = code & ((1 << mantissa_bits) - 1);
    const double fraction = mantissa / std::exp2(mantissa_bits);
    const double value = exponent == 0 ? fraction * std::exp2(1 - bias) : (1 + fraction) * std::exp2(exponent - bias);
    if (value <= largest) values.insert(sign ? -value : value);
  }
  return values;
}

// The nearest of the values; between two, the one that is an even multiple of the distance of the two.
double nearest(const std::set<double>& values, double x) {
  const auto above = values.lower_bound(x);
  if (above == values.end()) return *values.rbegin();
  if (above == values.begin()) return *values.begin();
  const double high = *above, low = *std::prev(above);
  if (high - x != x - low) return high - x < x - low ? high : low;
  return std::fmod(low / (high - low), 2) == 0 ? low : high;
}

void expect_rounds(const Fp8Format& format, const std::set<double>& values) {
  for (const double scale : {1.0, 0x1p-9, 0x1p7}) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const double x = to_float(BF16{static_cast<uint16_t>(bits)}) * scale;
      if (!std::isfinite(x)) {
        ASSERT_TRUE(std::isnan(round_to(format, x)));
        ASSERT_TRUE(std::isnan(round_to(format, static_cast<float>(x))));
        continue;
      }
      ASSERT_EQ(round_to(format, x), nearest(values, x)) << x;
      ASSERT_EQ(std::signbit(round_to(format, x)), std::signbit(x)) << x;
      const auto narrow = static_cast<float>(x);
      if (std::isfinite(narrow)) {
        ASSERT_EQ(round_to(format, narrow), nearest(values, narrow)) << narrow;
      }
    }
  }
}

TEST(Fp8, RoundsToTheNearestOfAllCodes) {
  const std::set<double> e4m3 = values_of(4, 3, 448), e5m2 = values_of(5, 2, 57344);
  EXPECT_EQ(e4m3.size(), 2 * 127 - 1);  // of 256 codes two are NaN, and -0 is 0
  EXPECT_EQ(e5m2.size(), 2 * 124 - 1);
  expect_rounds(kE4M3, e4m3);
  expect_rounds(kE5M2, e5m2);
}

TEST(Fp8, TiesGoToEven) {
  for (const double x : {17.0, 19.0, -17.0, 0x1p-10, 3 * 0x1p-10, 0x1.1p0, 0x1.3p0, 432.0, 464.0, 1e9})
    EXPECT_EQ(round_to(kE4M3, x), (std::map<double, double>{{17, 16},
                                                            {19, 20},
                                                            {-17, -16},
                                                            {0x1p-10, 0},
                                                            {3 * 0x1p-10, 0x1p-8},
                                                            {0x1.1p0, 1},
                                                            {0x1.3p0, 0x1.4p0},
                                                            {432, 448},
                                                            {464, 448},
                                                            {1e9, 448}}
                                       .at(x)))
        << x;
}

TEST(Fp8, TheScaleIsTheLeastWithWhichNothingSaturates) {
  for (const Fp8Format& format : {kE4M3, kE5M2})
    for (int p = -149; p < 128; ++p)
      for (const float mantissa : {1.0f, 1.5f, 1.75f, 1.75f + 0x1p-23f, 2 - 0x1p-23f}) {
        const float amax = std::ldexp(mantissa, p);
        if (amax == 0 || std::isinf(amax)) continue;
        const int e = scale_exponent(format, kE8M0, amax);
        ASSERT_LE(amax, format.largest * std::exp2(static_cast<double>(e)));
        if (e > kE8M0.smallest) {
          ASSERT_GT(amax, format.largest * std::exp2(e - 1.0)) << amax;
        }
        ASSERT_EQ(scale_exponent(format, kE8M0, static_cast<double>(amax)), e);
      }
  EXPECT_EQ(scale_exponent(kE4M3, kE8M0, 0.0f), 0);
}

constexpr int64_t kOperandRows = 300, kOperandColumns = 200;

// Values of very different sizes, from one row and column to the next.
template <class S>
Buffer<S> uneven(const Shape& shape) {
  Buffer<S> x = Buffer<S>::random(shape, "operand");
  const int64_t columns = shape[shape.rank() - 1];
  for (int64_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<S>(std::ldexp(x[i], static_cast<int>((i / columns * 7 + i % columns * 3) % 31) - 15));
  return x;
}

struct RoundingCase {
  const char* name;
  EightBits bits;
};

class RoundOperandTest : public testing::TestWithParam<RoundingCase> {
 protected:
  // By the definition, block by block; 0 from row `live` on.
  static Buffer<double> expected(const Buffer<double>& x, const EightBits& bits, int64_t live) {
    static const std::set<double> e4m3 = values_of(4, 3, 448), e5m2 = values_of(5, 2, 57344);
    Buffer<double> y({kOperandRows, kOperandColumns});
    for_each_block(bits.blocks, {live, kOperandColumns}, [&](const auto& each_element) {
      double amax = 0;
      each_element([&](int64_t r, int64_t c) { amax = std::max(amax, std::abs(x[r * kOperandColumns + c])); });
      double scale = 1;
      if (bits.scale == ScaleRule::kFp32) {
        scale = static_cast<float>(amax / bits.format.largest);
      } else {
        while (amax > scale * bits.format.largest) scale *= 2;
        while (amax <= scale / 2 * bits.format.largest) scale /= 2;
      }
      each_element([&](int64_t r, int64_t c) {
        const int64_t i = r * kOperandColumns + c;
        y[i] = nearest(bits.format == kE4M3 ? e4m3 : e5m2, x[i] / scale) * scale;
      });
    });
    return y;
  }
};

TEST_P(RoundOperandTest, IsTheDefinition) {
  TestCtx ctx;
  for (const int64_t live : {kOperandRows, int64_t{129}, int64_t{1}}) {
    Buffer<double> x = uneven<double>({kOperandRows, kOperandColumns}), y({kOperandRows, kOperandColumns}, 7);
    Buffer<float> narrow({kOperandRows, kOperandColumns});
    for (int64_t i = 0; i < x.size(); ++i) narrow[i] = static_cast<float>(x[i]);
    round_operand(ctx, {.x = x, .y = y, .bits = GetParam().bits, .live = live});
    round_operand(ctx, {.x = narrow, .y = narrow, .bits = GetParam().bits, .live = live});
    const Buffer<double> want = expected(x, GetParam().bits, live);
    for (int64_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], want[i]) << i / kOperandColumns << ", " << i % kOperandColumns;
      if (GetParam().bits.scale == ScaleRule::kFp32) {
        ASSERT_FLOAT_EQ(narrow[i], static_cast<float>(want[i]));
      } else {
        ASSERT_EQ(narrow[i], want[i]) << i / kOperandColumns << ", " << i % kOperandColumns;
      }
    }
  }
}

TEST_P(RoundOperandTest, EachMatrixByItself) {
  TestCtx ctx;
  constexpr int64_t kMatrices = 3;
  Buffer<float> x = uneven<float>({kMatrices, kOperandRows, kOperandColumns}),
                y({kMatrices, kOperandRows, kOperandColumns});
  round_operand(ctx, {.x = x, .y = y, .bits = GetParam().bits, .live = kOperandRows});
  for (int64_t e = 0; e < kMatrices; ++e) {
    Buffer<float> one({kOperandRows, kOperandColumns});
    std::copy_n(&x[e * kOperandRows * kOperandColumns], kOperandRows * kOperandColumns, &one[0]);
    round_operand(ctx, {.x = one, .y = one, .bits = GetParam().bits, .live = kOperandRows});
    for (int64_t i = 0; i < one.size(); ++i) ASSERT_EQ(y[e * kOperandRows * kOperandColumns + i], one[i]);
  }
}

TEST_P(RoundOperandTest, WhatIsNotFiniteStaysSoAndSpoilsNothing) {
  TestCtx ctx;
  Buffer<float> x = uneven<float>({kOperandRows, kOperandColumns}), with({kOperandRows, kOperandColumns}),
                without({kOperandRows, kOperandColumns});
  x[5 * kOperandColumns + 9] = 0;
  round_operand(ctx, {.x = x, .y = without, .bits = GetParam().bits, .live = kOperandRows});
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    x[5 * kOperandColumns + 9] = bad;
    round_operand(ctx, {.x = x, .y = with, .bits = GetParam().bits, .live = kOperandRows});
    for (int64_t i = 0; i < x.size(); ++i) {
      const bool here = i == 5 * kOperandColumns + 9;
      ASSERT_TRUE(here ? std::isnan(with[i]) : with[i] == without[i]) << i;
    }
  }
}

TEST_P(RoundOperandTest, NothingIsMadeOfNothing) {
  TestCtx ctx;
  Buffer<float> zeros({kOperandRows, kOperandColumns}), tiny({1, 32}, 0x1p-149f);
  round_operand(ctx, {.x = zeros, .y = zeros, .bits = GetParam().bits, .live = kOperandRows});
  for (int64_t i = 0; i < zeros.size(); ++i) ASSERT_EQ(zeros[i], 0);
  round_operand(ctx, {.x = tiny, .y = tiny, .bits = GetParam().bits, .live = 1});
  for (int64_t i = 0; i < tiny.size(); ++i) ASSERT_TRUE(std::isfinite(tiny[i]));
}

INSTANTIATE_TEST_SUITE_P(Bits, RoundOperandTest,
                         testing::Values(RoundingCase{"MxColumns", {kE4M3, {1, 32}, ScaleRule::kMx}},
                                         RoundingCase{"MxRows", {kE4M3, {32, 1}, ScaleRule::kMx}},
                                         RoundingCase{"Row", {kE4M3, {1, 128}, ScaleRule::kPowerOfTwo}},
                                         RoundingCase{"Column", {kE4M3, {128, 1}, ScaleRule::kPowerOfTwo}},
                                         RoundingCase{"Square", {kE4M3, {128, 128}, ScaleRule::kPowerOfTwo}},
                                         RoundingCase{"SquareFp32", {kE4M3, {128, 128}, ScaleRule::kFp32}},
                                         RoundingCase{"Tensor", {kE4M3, {0, 0}, ScaleRule::kFp32}},
                                         RoundingCase{"TensorE5M2", {kE5M2, {0, 0}, ScaleRule::kPowerOfTwo}}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mixtune
