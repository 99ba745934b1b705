// Stochastic rounding as a training has it: AdamW on a bf16 State, on one rank and on two, which are threads.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "state/testing.h"

namespace mixtune {
namespace {

constexpr double kBf16Step = 0x1p-8;  // between the bf16 numbers below 1

// The mean of the elements, and the share of those that are not 1.
struct Statistics {
  double mean = 0, moved = 0;

  explicit Statistics(const std::vector<double>& values) {
    for (const double value : values) {
      mean += value / static_cast<double>(values.size());
      moved += (value != 1) / static_cast<double>(values.size());
    }
  }
};

StateTypes bf16_types(bool masters, DType moments) {
  return {.weights = DType::kBF16, .gradients = DType::kF32, .moments = moments, .masters = masters};
}

Trained train(const Layout& layout, const StateTypes& types, int64_t steps, double learning_rate) {
  return train(layout, types, steps, OptimizerSettings{.learning_rate = learning_rate});
}

TEST(StochasticRounding, GivesTheSameBitsOnAnyLayout) {
  for (const bool masters : {false, true})
    for (const DType moments : {DType::kF32, DType::kBF16}) {
      const Trained alone = train(kAlone, bf16_types(masters, moments), 20, 1e-3);
      ASSERT_EQ(alone.weights.size(), 7u);
      ASSERT_EQ(alone.masters.size(), masters ? 7u : 0u);
      for (const Layout& layout : kLayouts) {
        SCOPED_TRACE(testing::Message() << "ep " << layout.expert_parallel << ", zero " << layout.zero_stage
                                        << ", masters " << masters << ", moments " << dtype_name(moments));
        const Trained two = train(layout, bf16_types(masters, moments), 20, 1e-3);
        EXPECT_TRUE(two.weights == alone.weights);
        EXPECT_TRUE(two.masters == alone.masters);
        EXPECT_TRUE(two.first_moments == alone.first_moments);
        EXPECT_TRUE(two.second_moments == alone.second_moments);
      }
    }
}

// A weight leaves 1 with probability learning rate / kBf16Step in each step. The bits of steps are independent: this
// shows in the share that has left after 300 steps, and in a mean that moves as far as in exact arithmetic.
TEST(StochasticRounding, WeightsWithoutMastersFollowFp32) {
  constexpr int64_t kSteps = 300;
  constexpr double kRate = 1e-5;
  const double moved = 1 - std::pow(1 - kRate / kBf16Step, kSteps);
  for (const Layout& layout : {kAlone, kLayouts[1]})
    for (const auto& [name, weights] : train(layout, bf16_types(false, DType::kF32), kSteps, kRate).weights) {
      const Statistics got(weights);
      const auto n = static_cast<double>(weights.size());
      // The variance of a weight is at most that of its 300 roundings, each under rate * kBf16Step.
      EXPECT_NEAR(got.mean, 1 - kSteps * kRate, 4 * std::sqrt(kSteps * kRate * kBf16Step / n)) << name;
      EXPECT_NEAR(got.moved, moved, 4 * std::sqrt(moved * (1 - moved) / n)) << name;
    }
}

TEST(StochasticRounding, MastersFollowFp32AndWeightsAreTheirNearest) {
  constexpr int64_t kSteps = 300;
  const Trained trained = train(kLayouts[3], bf16_types(true, DType::kBF16), kSteps, 1e-5);
  for (const auto& [name, masters] : trained.masters) {
    // With bf16 moments m is within kBf16Step of its value in each step, v as well, and its root by half of that.
    EXPECT_NEAR(Statistics(masters).mean, 1 - kSteps * 1e-5, kSteps * 1e-5 * 2 * kBf16Step) << name;
    for (size_t i = 0; i < masters.size(); ++i)
      ASSERT_EQ(trained.weights.at(name)[i], to_float(to_bf16(static_cast<float>(masters[i])))) << name;
  }
}

TEST(StochasticRounding, MomentsFollowFp32) {
  constexpr int64_t kSteps = 300;
  const OptimizerSettings settings;
  const Trained trained = train(kLayouts[1], bf16_types(false, DType::kBF16), kSteps, 1e-5);
  const auto expect = [&](const Tensors& moments, double beta) {
    // Each rounding is off by at most half a kBf16Step in the square's mean; those of 1 / (1 - beta^2) steps add up.
    const double sigma = kBf16Step / 2 * std::sqrt(std::min<double>(kSteps, 1 / (1 - beta * beta)));
    for (const auto& [name, values] : moments)
      EXPECT_NEAR(Statistics(values).mean, 1 - std::pow(beta, kSteps),
                  4 * sigma / std::sqrt(static_cast<double>(values.size())))
          << name;
  };
  expect(trained.first_moments, settings.adam_beta1);
  expect(trained.second_moments, settings.adam_beta2);
}

// The share of elements that moved in both or in neither.
double agreement(const std::vector<double>& a, const std::vector<double>& b) {
  double same = 0;
  for (size_t i = 0; i < a.size(); ++i) same += (a[i] == 1) == (b[i] == 1);
  return same / static_cast<double>(a.size());
}

// A step of half the distance of bf16 numbers moves one weight of two, by its random bits.
TEST(StochasticRounding, EachTensorAndStepHasItsOwnBits) {
  run_ranks(kAlone, [&](const Ranks& ranks) {
    RankTraining rank(ranks, bf16_types(false, DType::kF32), 0, {.learning_rate = kBf16Step / 2});
    std::vector<std::vector<double>> moves;
    for (int64_t step = 1; step <= 3; ++step) {
      for (int p = 0; p < 5; ++p) rank.reset(p);
      rank.step(step);
      const Tensors weights = rank.result().weights;
      for (const char* name : {"q", "k", "expert 0", "expert 1"}) moves.push_back(weights.at(name));
    }
    const double tolerance = 5 * 0.5 / std::sqrt(kRows * kWidth);
    for (size_t a = 0; a < moves.size(); ++a) {
      EXPECT_NEAR(Statistics(moves[a]).moved, 0.5, tolerance);
      for (size_t b = 0; b < a; ++b) EXPECT_NEAR(agreement(moves[a], moves[b]), 0.5, tolerance) << a << ", " << b;
    }
  });
}

}  // namespace
}  // namespace mixtune
