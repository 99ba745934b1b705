// Groups of weights that have learning rates of their own, against AdamW computed by hand in fp64.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "state/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kFiveSteps = 5;
const StateTypes kFp32 = StateTypes::all(DType::kF32);
const OptimizerSettings kSettings = {.learning_rate = 1e-2,
                                     .lr_groups = {{"experts", "0.003"}, {"norms", "0"}, {"router", "0.0005"}},
                                     .weight_decay = 0.1};

// A weight of 1 after steps with a gradient of 1.
double by_hand(double rate, double decay) {
  double w = 1, m = 0, v = 0;
  for (int step = 1; step <= kFiveSteps; ++step) {
    m = kSettings.adam_beta1 * m + (1 - kSettings.adam_beta1);
    v = kSettings.adam_beta2 * v + (1 - kSettings.adam_beta2);
    const double first = m / (1 - std::pow(kSettings.adam_beta1, step)),
                 second = v / (1 - std::pow(kSettings.adam_beta2, step));
    w -= rate * decay * w;
    w -= rate * first / (std::sqrt(second) + kSettings.adam_epsilon);
  }
  return w;
}

TEST(LrGroups, EachGroupFollowsItsOwnRateOnAnyLayout) {
  const double experts = by_hand(0.003, 0.1), attention = by_hand(1e-2, 0.1);
  const std::map<std::string, double> expected = {{"q", attention},
                                                  {"k", attention},
                                                  {"expert 0", experts},
                                                  {"expert 1", experts},
                                                  {"packed", experts},
                                                  {"router", by_hand(0.0005, 0.1)},
                                                  {"norm", 1}};
  const Trained alone = train(kAlone, kFp32, kFiveSteps, kSettings);
  ASSERT_EQ(alone.weights.size(), expected.size());
  for (const auto& [name, weights] : alone.weights)
    for (const double weight : weights) ASSERT_NEAR(weight, expected.at(name), 1e-6) << name;
  EXPECT_TRUE(alone.weights.at("norm") == std::vector<double>(kWidth, 1.0));          // not even rounded
  for (const double moment : alone.first_moments.at("norm")) ASSERT_GT(moment, 0.4);  // it has gradients all the same
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(testing::Message() << "ep " << layout.expert_parallel << ", zero " << layout.zero_stage);
    const Trained two = train(layout, kFp32, kFiveSteps, kSettings);
    EXPECT_TRUE(two.weights == alone.weights);
    EXPECT_TRUE(two.first_moments == alone.first_moments);
    EXPECT_TRUE(two.second_moments == alone.second_moments);
  }
}

// A group stays as it is to the bit, also where weights are rounded stochastically.
TEST(LrGroups, ARateOf0LeavesBf16WeightsAlone) {
  OptimizerSettings settings = kSettings;
  settings.lr_groups = {{"attention", "0"}};
  const Trained trained =
      train(kLayouts[1], {.weights = DType::kBF16, .gradients = DType::kF32, .moments = DType::kBF16, .masters = false},
            kFiveSteps, settings);
  for (const char* name : {"q", "k"})
    EXPECT_TRUE(trained.weights.at(name) == std::vector<double>(kRows * kWidth, 1.0)) << name;
  EXPECT_LT(trained.weights.at("router")[0], 1);
}

TEST(LrGroups, TheRunsOwnRateForEachIsTheRunWithoutGroups) {
  OptimizerSettings none = kSettings, all = kSettings;
  none.lr_groups = {};
  all.lr_groups.clear();
  for (const std::string_view group : kWeightGroups) all.lr_groups[std::string(group)] = "0.01";
  EXPECT_TRUE(train(kLayouts[3], kFp32, kFiveSteps, none).weights ==
              train(kLayouts[3], kFp32, kFiveSteps, all).weights);
}

}  // namespace
}  // namespace mixtune
