#include "generate/sampling.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

namespace mixtune {
namespace {

TEST(Sampling, GreedyTakesTheLowestOfTheLargest) {
  const std::array<float, 4> logits = {1, 3, 3, -2};
  for (int64_t position = 0; position < 10; ++position) EXPECT_EQ(next_token(logits, {}, position), 1);
}

std::vector<double> shares(std::span<const float> logits, const Sampling& sampling) {
  constexpr int kDraws = 20000;
  std::vector<double> shares(logits.size());
  for (int64_t position = 0; position < kDraws; ++position)
    shares[next_token(logits, sampling, position)] += 1.0 / kDraws;
  return shares;
}

TEST(Sampling, DrawsFollowTheSoftmaxAtTheTemperature) {
  const std::array<float, 3> logits = {0, std::log(2.f), std::log(5.f)};
  const std::vector<double> at_one = shares(logits, {.temperature = 1});
  EXPECT_NEAR(at_one[0], 1.0 / 8, 0.01);
  EXPECT_NEAR(at_one[1], 2.0 / 8, 0.01);
  EXPECT_NEAR(at_one[2], 5.0 / 8, 0.01);
  const std::vector<double> sharp = shares(logits, {.temperature = 0.5});  // squares the odds
  EXPECT_NEAR(sharp[0], 1.0 / 30, 0.01);
  EXPECT_NEAR(sharp[2], 25.0 / 30, 0.01);
}

TEST(Sampling, TopPKeepsTheSmallestSetThatReachesIt) {
  const std::array<float, 3> logits = {0, std::log(2.f), std::log(5.f)};
  const std::vector<double> two = shares(logits, {.temperature = 1, .top_p = 0.8});
  EXPECT_EQ(two[0], 0);
  EXPECT_NEAR(two[1], 2.0 / 7, 0.01);
  const std::vector<double> one = shares(logits, {.temperature = 1, .top_p = 0.01});
  EXPECT_NEAR(one[2], 1, 1e-9);
}

TEST(Sampling, SeedAndPositionDecide) {
  const std::vector<float> logits(1000, 0.f);
  const Sampling sampling = {.temperature = 1, .seed = 5};
  EXPECT_EQ(next_token(logits, sampling, 3), next_token(logits, sampling, 3));
  int same = 0;
  for (int64_t position = 0; position < 100; ++position)
    same += next_token(logits, sampling, position) == next_token(logits, {.temperature = 1, .seed = 6}, position);
  EXPECT_LT(same, 5);
}

}  // namespace
}  // namespace mixtune
