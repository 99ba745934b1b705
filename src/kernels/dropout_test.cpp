#include "kernels/dropout.h"

#include <cmath>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kMaskRows = 400, kMaskWidth = 37, kMaskFirst = 1000;
constexpr double kMaskShare = 0.3;

// 1 where an element of rows is left.
Buffer<double> mask_of(const Dropout& dropout, int64_t rows = kMaskRows) {
  TestCtx ctx;
  Buffer<double> ones({rows, kMaskWidth}, 1), left({rows, kMaskWidth}, 9);
  drop_out(ctx, {.x = ones, .y = left, .dropout = dropout});
  return left;
}

// The mean of two masks' product, less that of either's.
double covariance(const Buffer<double>& a, const Buffer<double>& b, int64_t shift = 0) {
  double of_a = 0, of_b = 0, both = 0;
  const int64_t n = a.size() - shift;
  for (int64_t i = 0; i < n; ++i) of_a += a[i], of_b += b[i + shift], both += a[i] * b[i + shift];
  return both / n - of_a / n * of_b / n;
}

TEST(Dropout, DropsItsShareOfEachElementApart) {
  for (const double share : {0.05, kMaskShare, 0.9}) {
    const Buffer<double> left = mask_of({.share = share, .key = 7, .first = kMaskFirst});
    double sum = 0;
    for (int64_t i = 0; i < left.size(); ++i) {
      ASSERT_TRUE(left[i] == 0 || left[i] == 1);
      sum += left[i];
    }
    const double variance = share * (1 - share), n = static_cast<double>(left.size());
    EXPECT_NEAR(sum / n, 1 - share, 4 * std::sqrt(variance / n));
    // Of neighbours, which share a hash; of an element and the one below; of other keys.
    for (const int64_t shift : {int64_t{1}, int64_t{2}, kMaskWidth})
      EXPECT_NEAR(covariance(left, left, shift), 0, 4 * variance / std::sqrt(n)) << shift;
    EXPECT_NEAR(covariance(left, mask_of({.share = share, .key = 8, .first = kMaskFirst})), 0,
                4 * variance / std::sqrt(n));
  }
}

// A rank that has the later rows alone, or has them in another order, drops what one that has all does.
TEST(Dropout, IsOfTheRowsNumber) {
  const Dropout all = {.share = kMaskShare, .key = 7, .first = kMaskFirst};
  const Buffer<double> left = mask_of(all), later = mask_of(all.slice(50, kMaskRows - 50), kMaskRows - 50);
  for (int64_t i = 0; i < later.size(); ++i) ASSERT_EQ(later[i], left[50 * kMaskWidth + i]);
  Buffer<int64_t> numbers({kMaskRows});
  for (int64_t r = 0; r < kMaskRows; ++r) numbers[r] = kMaskFirst + (r * 7) % kMaskRows;
  const Dropout by_number = {.share = kMaskShare, .key = 7, .numbers = numbers};
  const Buffer<double> turned = mask_of(by_number), part = mask_of(by_number.slice(9, 20), 20);
  for (int64_t r = 0; r < kMaskRows; ++r)
    for (int64_t c = 0; c < kMaskWidth; ++c)
      ASSERT_EQ(turned[r * kMaskWidth + c], left[(r * 7) % kMaskRows * kMaskWidth + c]);
  for (int64_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i], turned[9 * kMaskWidth + i]);
}

TEST(Dropout, LeavesElementsAsTheyAreInPlaceToo) {
  TestCtx ctx;
  const Dropout dropout = {.share = kMaskShare, .key = 7, .first = kMaskFirst};
  Buffer<float> x = Buffer<float>::random({kMaskRows, kMaskWidth}, "x"), y({kMaskRows, kMaskWidth}, 9), same = x;
  drop_out(ctx, {.x = x, .y = y, .dropout = dropout});
  drop_out(ctx, {.x = same, .y = same, .dropout = dropout});
  const Buffer<double> left = mask_of(dropout);
  for (int64_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(y[i], left[i] == 0 ? 0 : x[i]);
    ASSERT_EQ(same[i], y[i]);
  }
  EXPECT_EQ(Dropout{.share = 0.75}.factor(), 4);
}

}  // namespace
}  // namespace mixtune
