#include "metrics/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>

namespace mixtune {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class WatchdogTest : public testing::Test {
 protected:
  std::vector<std::string> look(double loss, double norm = 1, double imbalance = 0) {
    const ParallelRecord parallel{.expert_imbalance = imbalance};
    return dog_.look({.lm_loss = loss, .grad_norm = norm, .parallel = imbalance > 0 ? &parallel : nullptr});
  }
  void steps(int count, double loss, double norm = 1, double imbalance = 0) {
    for (int i = 0; i < count; ++i) EXPECT_THAT(look(loss, norm, imbalance), IsEmpty()) << i;
  }

  Watchdog dog_;
};

TEST_F(WatchdogTest, ALossOverThreeTimesItsSmallestMeanIsSaidOnceForEachTime) {
  steps(20, 2);
  EXPECT_EQ(dog_.loss_limit(), 6);
  steps(1, 6);
  EXPECT_THAT(look(6.01), ElementsAre(HasSubstr("lm_loss 6.01 is over 6, 3 times its smallest mean of 20 steps")));
  steps(3, 9);
  EXPECT_EQ(dog_.steps_over(), 4);
  steps(1, 5);
  EXPECT_EQ(dog_.steps_over(), 0);
  EXPECT_THAT(look(7), ElementsAre(HasSubstr("lm_loss 7 ")));
}

TEST_F(WatchdogTest, DivergedIsFiveStepsInARow) {
  steps(20, 1);
  look(4), look(4), look(4), look(4), look(1);
  for (int i = 0; i < 4; ++i) look(4);
  EXPECT_FALSE(dog_.has_diverged());
  look(4);
  EXPECT_TRUE(dog_.has_diverged());
}

TEST_F(WatchdogTest, TheSmallestMeanIsOfAnyTwentyStepsYet) {
  steps(20, 4);
  steps(10, 2);
  EXPECT_EQ(dog_.loss_limit(), 9);
  steps(10, 8);  // no smaller one
  EXPECT_EQ(dog_.loss_limit(), 9);
}

TEST_F(WatchdogTest, WhatIsNearlyNothingIsNoMeasure) {
  steps(20, 1e-4);
  steps(1, 0.3);
  EXPECT_THAT(look(0.31), testing::SizeIs(1));
}

TEST_F(WatchdogTest, NothingIsSaidOfTheFirstSteps) {
  steps(10, 1, 1, 1.1);
  steps(9, 100, 100, 4);
  EXPECT_FALSE(dog_.loss_limit());
}

TEST_F(WatchdogTest, ANormOverTenTimesItsMedian) {
  steps(10, 1, 1);
  steps(10, 1, 3);  // the median is 3
  steps(1, 1, 30);
  EXPECT_THAT(look(1, 31), ElementsAre(HasSubstr("grad_norm 31 is over 10 times 3, the median")));
  steps(1, 1, 500);
  steps(1, 1, 1);
  EXPECT_THAT(look(1, 31), testing::SizeIs(1));
}

// What stays is no longer unusual.
TEST_F(WatchdogTest, OfTheLastHundredNorms) {
  steps(100, 1, 1);
  EXPECT_THAT(look(1, 100), testing::SizeIs(1));
  steps(60, 1, 100);
  steps(1, 1, 999);
}

TEST_F(WatchdogTest, AMeanImbalanceOverHalfAsMuchAgainAsItsSmallest) {
  steps(20, 1, 1, 1.2);
  steps(5, 1, 1, 2.4);  // means up to 1.5
  steps(3, 1, 1, 2.8);  // 1.74
  std::vector<std::string> said;
  for (int i = 0; i < 20; ++i) std::ranges::copy(look(1, 1, 2.8), std::back_inserter(said));
  EXPECT_THAT(said, ElementsAre(HasSubstr("expert_imbalance has a mean of ")));
  steps(30, 1, 1, 1.2);
}

class WatchedOperands : public testing::Test {
 protected:
  std::vector<std::string> look() { return dog_.look({.lm_loss = 1, .grad_norm = 1, .operands = &operands_}); }

  Watchdog dog_;
  std::vector<OperandLoss> operands_ = std::vector<OperandLoss>(12);
};

TEST_F(WatchedOperands, WhatIsFlushedIsSaidOnceForEachTimeFromTheFirstStepOn) {
  EXPECT_THAT(look(), IsEmpty());
  operands_[3].flushed = 0.01;
  EXPECT_THAT(look(), IsEmpty());
  operands_[3].flushed = 0.02;
  operands_[11].flushed = 0.5;
  EXPECT_THAT(look(), ElementsAre(HasSubstr("flushed_down_gradient 0.5 is over 0.01 (of 2 operands' shares): ")));
  EXPECT_THAT(look(), IsEmpty());
  operands_[3].flushed = operands_[11].flushed = 0;
  EXPECT_THAT(look(), IsEmpty());
  operands_[0].flushed = 0.1;
  EXPECT_THAT(look(), ElementsAre(HasSubstr("flushed_qkv_input 0.1 ")));
}

TEST_F(WatchedOperands, AnythingSaturatedIsSaid) {
  operands_[9].saturated = 1e-9;
  EXPECT_THAT(look(), ElementsAre(HasSubstr("saturated_down_input 1e-09 is over 0: ")));
  EXPECT_THAT(look(), IsEmpty());
}

TEST_F(WatchedOperands, StepsThatDoNotLookSayNothing) {
  for (int i = 0; i < 3; ++i) EXPECT_THAT(dog_.look({.lm_loss = 1, .grad_norm = 1}), IsEmpty());
}

}  // namespace
}  // namespace mixtune
