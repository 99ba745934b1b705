// cast, fill_normal and add_sum.
#include "kernels/cast.h"

#include <bit>

#include "kernels/fill.h"
#include "kernels/reduce.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

template <class To, class From>
To cast_one(From x) {
  TestCtx ctx;
  Buffer<From> from({1}, x);
  Buffer<To> to({1});
  cast(ctx, from, to);
  return to[0];
}

TEST(Cast, RoundsToNearestEven) {
  EXPECT_EQ(cast_one<BF16>(1.00390625f).bits, 0x3F80);  // ties
  EXPECT_EQ(cast_one<BF16>(1.01171875f).bits, 0x3F82);
  EXPECT_EQ(cast_one<BF16>(-1.004f).bits, 0xBF81);
  EXPECT_EQ(cast_one<BF16>(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_TRUE(std::isnan(to_float(cast_one<BF16>(std::bit_cast<float>(0x7F800001u)))));
  EXPECT_EQ(cast_one<float>(1 + 0x1p-24), 1);
  EXPECT_EQ(cast_one<BF16>(F16{0x3C04}).bits, 0x3F80);  // 1 + 2^-8
}

TEST(Cast, RoundsFp64ToBf16Once) {
  EXPECT_EQ(cast_one<BF16>(1 + 0x1p-8).bits, 0x3F80);  // a tie
  EXPECT_EQ(cast_one<BF16>(1 + 0x1p-8 + 0x1p-40).bits, 0x3F81);
  EXPECT_EQ(cast_one<BF16>(-1 - 0x1p-8 - 0x1p-40).bits, 0xBF81);
  EXPECT_EQ(cast_one<BF16>(1 + 0x1.8p-7 - 0x1p-40).bits, 0x3F81);  // just below a tie that would go up
  EXPECT_EQ(cast_one<BF16>(1e300).bits, 0x7F80);
  EXPECT_EQ(cast_one<BF16>(-1e-300).bits, 0x8000);
  EXPECT_TRUE(std::isnan(to_float(cast_one<BF16>(std::nan("")))));
}

TEST(Cast, WidensExactly) {
  EXPECT_EQ(cast_one<float>(BF16{0xC049}), -3.140625f);
  EXPECT_EQ(cast_one<float>(F16{0x0001}), 0x1p-24f);
  EXPECT_EQ(cast_one<double>(F16{0xFBFF}), -65504);
  EXPECT_EQ(cast_one<double>(1.1f), static_cast<double>(1.1f));
}

TEST(Cast, CopiesWithinADtypeAndTakesTheSameTensor) {
  constexpr int64_t kSize = 1001;
  TestCtx ctx;
  Buffer<float> x = Buffer<float>::random({kSize}, "x"), y({kSize}), back({kSize});
  Buffer<double> wide({kSize});
  cast(ctx, x, y);
  cast(ctx, y, y);
  cast(ctx, y, wide);
  cast(ctx, wide, back);
  for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(back[i], x[i]);
}

TEST(FillNormal, IsOfTheLogicalElement) {
  constexpr int64_t kSize = 1000;
  TestCtx ctx;
  Buffer<double> whole({kSize});
  Buffer<float> part({10});
  Buffer<BF16> narrow({10});
  fill_normal(ctx, {.tensor = whole, .key = 5, .mean = 2, .deviation = 0.5});
  fill_normal(ctx, {.tensor = part, .key = 5, .first = 90, .mean = 2, .deviation = 0.5});
  fill_normal(ctx, {.tensor = narrow, .key = 5, .first = 90, .mean = 2, .deviation = 0.5});
  for (int64_t i = 0; i < kSize; ++i) ASSERT_EQ(whole[i], 2 + 0.5 * random_normal(5, i));
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(part[i], static_cast<float>(whole[90 + i]));
    EXPECT_EQ(narrow[i].bits, to_bf16(part[i]).bits);
  }
}

TEST(AddSum, AddsToTheTotal) {
  TestCtx ctx;
  Buffer<double> values({1000}), total({1}, 0.5);
  for (int64_t i = 0; i < 1000; ++i) values[i] = static_cast<double>(i);
  add_sum(ctx, values, total);
  EXPECT_EQ(total[0], 499500.5);
  add_sum(ctx, values.tensor().slice(0, 0), total);
  EXPECT_EQ(total[0], 499500.5);
}

}  // namespace
}  // namespace mixtune
