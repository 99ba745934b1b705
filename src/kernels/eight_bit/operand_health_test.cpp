// What 8 bits lose, counted block by block by a loop that knows the formats by their values alone.
#include "kernels/eight_bit/operand_health.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/eight_bit/testing.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

using Tally = std::array<int64_t, kHealthNumbers>;

constexpr int64_t kTalliedRows = 300, kTalliedColumns = 200;

// Values of very different sizes, from one row and column to the next, some of them 0.
Buffer<float> wide_range(const Shape& shape) {
  Buffer<float> x = Buffer<float>::random(shape, "wide range");
  for (int64_t i = 0; i < x.size(); ++i)
    x[i] = i % 11 == 0
               ? 0
               : std::ldexp(x[i], static_cast<int>((i / kTalliedColumns * 7 + i % kTalliedColumns * 5) % 47) - 30);
  return x;
}

struct HealthCase {
  const char* name;
  EightBits bits;
  double smallest, largest;  // of the format: its least positive value, and the most that does not saturate
};

class OperandHealthTest : public testing::TestWithParam<HealthCase> {
 protected:
  Tally tally(const Tensor& x, int64_t live, Tally before = {}) {
    operand_health(
        ctx_, {.x = x, .bits = GetParam().bits, .live = live, .tally = host_tensor(before.data(), {kHealthNumbers})});
    return before;
  }

  // Doubled and halved until it is the least that is enough.
  static double scale_of(double amax) {
    const auto& [format, blocks, rule] = GetParam().bits;
    if (amax == 0) return 1;
    if (rule == ScaleRule::kFp32) return static_cast<float>(amax / format.largest);
    double scale = 1;
    while (amax > scale * format.largest) scale *= 2;
    while (amax <= scale / 2 * format.largest) scale /= 2;
    return scale;
  }

  static Tally expected(const Buffer<float>& x, int64_t live) {
    Tally sums = {};
    double most = 0;
    for_each_block(GetParam().bits.blocks, {live, kTalliedColumns}, [&](const auto& each_element) {
      double amax = 0;
      each_element([&](int64_t r, int64_t c) {
        const double size = std::abs(double{x[r * kTalliedColumns + c]});
        if (std::isfinite(size)) amax = std::max(amax, size);
      });
      most = std::max(most, amax);
      const double scale = scale_of(amax);
      each_element([&](int64_t r, int64_t c) {
        const double scaled = std::abs(double{x[r * kTalliedColumns + c]}) / scale;
        if (scaled == 0) return;
        ++sums[kHealthValues];
        sums[kHealthFlushed] += scaled <= GetParam().smallest / 2;  // half-way goes to 0, which is even
        sums[kHealthSaturated] += !(scaled <= GetParam().largest);
      });
    });
    sums[kHealthAmax] = std::bit_cast<uint32_t>(static_cast<float>(most));
    return sums;
  }

  TestCtx ctx_;
};

TEST_P(OperandHealthTest, CountsWhatIsLost) {
  Buffer<float> x = wide_range({kTalliedRows, kTalliedColumns}), zeros({kTalliedRows, kTalliedColumns});
  Buffer<double> wide({kTalliedRows, kTalliedColumns});
  x[7 * kTalliedColumns + 3] = std::numeric_limits<float>::infinity();
  x[8 * kTalliedColumns + 150] = std::numeric_limits<float>::quiet_NaN();
  x[9 * kTalliedColumns + 1] = -0.0f;
  for (int64_t i = 0; i < x.size(); ++i) wide[i] = x[i];
  for (const int64_t live : {kTalliedRows, int64_t{129}, int64_t{1}, int64_t{0}}) {
    const Tally want = expected(x, live);
    EXPECT_EQ(tally(x, live), want) << live;
    EXPECT_EQ(tally(wide, live), want) << live;
    EXPECT_EQ(want[kHealthSaturated], live > 8 ? 2 : 0);
    if (live == kTalliedRows) {
      EXPECT_GT(want[kHealthFlushed], 0);
    }
  }
  EXPECT_EQ(tally(zeros, kTalliedRows), Tally{});
}

TEST_P(OperandHealthTest, IsWhatRoundOperandMakesZero) {
  Buffer<float> x = wide_range({kTalliedRows, kTalliedColumns}), y({kTalliedRows, kTalliedColumns});
  round_operand(ctx_, {.x = x, .y = y, .bits = GetParam().bits, .live = kTalliedRows});
  int64_t flushed = 0;
  for (int64_t i = 0; i < x.size(); ++i) flushed += x[i] != 0 && y[i] == 0;
  EXPECT_EQ(tally(x, kTalliedRows)[kHealthFlushed], flushed);
}

TEST_P(OperandHealthTest, AddsToTheTally) {
  Buffer<float> x = wide_range({kTalliedRows, kTalliedColumns});
  const Tally once = tally(x, kTalliedRows), large = {1, 2, 3, std::bit_cast<int32_t>(1e30f)};
  const Tally sum = tally(x, kTalliedRows, large);
  for (const int number : {kHealthValues, kHealthFlushed, kHealthSaturated})
    EXPECT_EQ(sum[number], large[number] + once[number]);
  EXPECT_EQ(sum[kHealthAmax], large[kHealthAmax]);
}

TEST_P(OperandHealthTest, EachMatrixByItself) {
  constexpr int64_t kMatrices = 3;
  Buffer<float> x = wide_range({kMatrices, kTalliedRows, kTalliedColumns});
  for (int64_t i = 0; i < kTalliedRows * kTalliedColumns; ++i) x[i] *= 0x1p20f;
  Tally apart = {};
  for (int64_t e = 0; e < kMatrices; ++e) apart = tally(x.tensor().row(e), kTalliedRows, apart);
  EXPECT_EQ(tally(x, kTalliedRows), apart);
}

// A scale's own rounding, where it is no power of two, takes values beyond the largest by a hair: nothing is lost.
TEST_P(OperandHealthTest, TheLargestValuesDoNotSaturate) {
  Buffer<float> x({kTalliedRows, kTalliedColumns});
  for (int64_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(1 + static_cast<float>(i) / 60001, i % 3 == 0 ? 0 : -1);
  EXPECT_EQ(tally(x, kTalliedRows)[kHealthSaturated], 0);
  EXPECT_EQ(tally(x, kTalliedRows)[kHealthFlushed], 0);
}

constexpr double kLeastE4M3 = 0x1p-9, kMostE4M3 = 464, kLeastE5M2 = 0x1p-16, kMostE5M2 = 61440;

INSTANTIATE_TEST_SUITE_P(
    Bits, OperandHealthTest,
    testing::Values(HealthCase{"MxColumns", {kE4M3, {1, 32}, ScaleRule::kMx}, kLeastE4M3, kMostE4M3},
                    HealthCase{"MxRows", {kE4M3, {32, 1}, ScaleRule::kMx}, kLeastE4M3, kMostE4M3},
                    HealthCase{"Row", {kE4M3, {1, 128}, ScaleRule::kPowerOfTwo}, kLeastE4M3, kMostE4M3},
                    HealthCase{"Column", {kE4M3, {128, 1}, ScaleRule::kPowerOfTwo}, kLeastE4M3, kMostE4M3},
                    HealthCase{"Square", {kE4M3, {128, 128}, ScaleRule::kPowerOfTwo}, kLeastE4M3, kMostE4M3},
                    HealthCase{"SquareFp32", {kE4M3, {128, 128}, ScaleRule::kFp32}, kLeastE4M3, kMostE4M3},
                    HealthCase{"Tensor", {kE4M3, {0, 0}, ScaleRule::kFp32}, kLeastE4M3, kMostE4M3},
                    HealthCase{"TensorE5M2", {kE5M2, {0, 0}, ScaleRule::kPowerOfTwo}, kLeastE5M2, kMostE5M2}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mixtune
