#include "kernels/moe/router_noise.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kNoisyTokens = 200, kNoisyWidth = 24, kFirstNoisy = 1000;
constexpr double kNoiseEps = 0.25;

template <class S>
Buffer<S> jittered(const Buffer<S>& x, int64_t first_token, double eps = kNoiseEps) {
  TestCtx ctx;
  Buffer<S> in = x, y({x.size() / kNoisyWidth, kNoisyWidth}, S(9));
  router_jitter(ctx, {.x = in, .y = y, .key = 7, .first_token = first_token, .eps = eps});
  return y;
}

TEST(RouterNoise, JitterIsEvenBetweenItsBounds) {
  const Buffer<double> ones({kNoisyTokens, kNoisyWidth}, 1.0);
  const Buffer<double> factors = jittered(ones, kFirstNoisy);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < factors.size(); ++i) {
    EXPECT_GE(factors[i], 1 - kNoiseEps);
    EXPECT_LE(factors[i], 1 + kNoiseEps);
    sum += factors[i] - 1;
    squares += (factors[i] - 1) * (factors[i] - 1);
  }
  const auto n = static_cast<double>(factors.size());
  EXPECT_NEAR(sum / n, 0, 4 * kNoiseEps / std::sqrt(3 * n));
  EXPECT_NEAR(squares / n, kNoiseEps * kNoiseEps / 3, 4 * kNoiseEps * kNoiseEps / std::sqrt(n));
  const Buffer<double> same = jittered(ones, kFirstNoisy, 0);
  for (int64_t i = 0; i < same.size(); ++i) EXPECT_EQ(same[i], 1);
}

// A rank that has the later tokens alone draws what one that has all does.
TEST(RouterNoise, JitterIsOfTheTokenAndNotOfItsRow) {
  const Buffer<float> x = Buffer<float>::random({kNoisyTokens, kNoisyWidth}, "x");
  const Buffer<float> all = jittered(x, kFirstNoisy);
  Buffer<float> tail({kNoisyTokens - 50, kNoisyWidth});
  for (int64_t i = 0; i < tail.size(); ++i) tail[i] = x[50 * kNoisyWidth + i];
  const Buffer<float> later = jittered(tail, kFirstNoisy + 50);
  for (int64_t i = 0; i < later.size(); ++i) EXPECT_EQ(later[i], all[50 * kNoisyWidth + i]);
  EXPECT_NE(jittered(x, kFirstNoisy + 1)[0], all[0]);
}

TEST(RouterNoise, JitterAddsUp) {
  TestCtx ctx;
  Buffer<double> x = Buffer<double>::random({kNoisyTokens, kNoisyWidth}, "x"), y({kNoisyTokens, kNoisyWidth}, 2.0);
  const Buffer<double> once = jittered(x, kFirstNoisy);
  router_jitter(ctx, {.x = x, .y = y, .key = 7, .first_token = kFirstNoisy, .eps = kNoiseEps, .accumulate = true});
  for (int64_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], 2.0 + once[i]);
}

Buffer<int32_t> drawn(int64_t tokens, int64_t live, int64_t k, int64_t first_token, int64_t experts) {
  TestCtx ctx;
  Buffer<int32_t> chosen({tokens, k}, 9);
  draw_experts(ctx, {.experts = chosen, .all_experts = experts, .live = live, .key = 7, .first_token = first_token});
  return chosen;
}

TEST(RouterNoise, DrawnExpertsAreDifferentAndEven) {
  constexpr int64_t kMany = 8000, kDrawn = 8, kOfToken = 2;
  const Buffer<int32_t> chosen = drawn(kMany + 5, kMany, kOfToken, kFirstNoisy, kDrawn);
  std::vector<int64_t> counts(kDrawn, 0);
  for (int64_t t = 0; t < kMany; ++t) {
    EXPECT_NE(chosen[t * kOfToken], chosen[t * kOfToken + 1]);
    for (int64_t slot = 0; slot < kOfToken; ++slot) ++counts.at(chosen[t * kOfToken + slot]);
  }
  const auto [least, most] = std::ranges::minmax(counts);
  EXPECT_GT(least, 1850);  // of 2000, whose standard deviation is 39
  EXPECT_LT(most, 2150);
  for (int64_t i = kMany * kOfToken; i < chosen.size(); ++i) EXPECT_EQ(chosen[i], -1);
}

TEST(RouterNoise, DrawnExpertsAreOfTheToken) {
  const Buffer<int32_t> all = drawn(40, 40, 3, kFirstNoisy, 5), later = drawn(30, 30, 3, kFirstNoisy + 10, 5);
  for (int64_t i = 0; i < later.size(); ++i) EXPECT_EQ(later[i], all[10 * 3 + i]);
  const Buffer<int32_t> every = drawn(1, 1, 5, kFirstNoisy, 5);
  for (int32_t e = 0; e < 5; ++e) EXPECT_EQ(std::count(&every[0], &every[0] + 5, e), 1);
}

}  // namespace
}  // namespace mixtune
