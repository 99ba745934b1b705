#include "metrics/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>

namespace mixtune {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class WatchdogTest : public testing::Test {
 protected:
  std::vector<std::string> look(double loss, double norm = 1) {
    return dog_.look({.lm_loss = loss, .grad_norm = norm});
  }
  void steps(int count, double loss, double norm = 1) {
    for (int i = 0; i < count; ++i) EXPECT_THAT(look(loss, norm), IsEmpty()) << i;
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
  steps(10, 1, 1);
  steps(9, 100, 100);
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

// The routers' rules are RouterWatch's; they are asked.
TEST_F(WatchdogTest, RoutersAreWatched) {
  const StepRecord collapsed = {.lm_loss = 1, .grad_norm = 1, .expert_imbalance = 3.9, .expert_share = 0.97};
  for (int i = 0; i < 2; ++i) EXPECT_THAT(dog_.look(collapsed), IsEmpty());
  EXPECT_THAT(dog_.look(collapsed), ElementsAre(HasSubstr("expert_share 0.97")));
}

class WatchedRanks : public testing::Test {
 protected:
  std::vector<std::string> look(double first, double second) {
    const ParallelRecord parallel{
        .ranks = {{.exchange_exposed_milliseconds = first}, {.exchange_exposed_milliseconds = second}}};
    return dog_.look({.lm_loss = 1, .grad_norm = 1, .milliseconds = 100, .parallel = &parallel});
  }
  Watchdog dog_;
};

TEST_F(WatchedRanks, AnAllToAllThatTakesMoreThanHalfOfTheStepsIsSaidOnce) {
  for (int i = 0; i < 25; ++i) EXPECT_THAT(look(20, 80), IsEmpty());
  EXPECT_THAT(look(30, 80), ElementsAre(HasSubstr("the all-to-all takes 50% of a step")));
  for (int i = 0; i < 30; ++i) EXPECT_THAT(look(90, 90), IsEmpty());
}

class FirstSteps : public testing::Test {
 protected:
  // What is said of 250 steps whose loss goes from 2 to `last` in 200.
  std::vector<std::string> said(int64_t first_step, double last) {
    Watchdog dog;
    std::vector<std::string> all;
    for (int i = 0; i < 250; ++i) {
      const double loss = 2 + (last - 2) * std::min(i, 200) / 200;
      std::ranges::move(dog.look({.step = first_step + i, .lm_loss = loss, .grad_norm = 1}), std::back_inserter(all));
    }
    return all;
  }
};

TEST_F(FirstSteps, OfARunWhoseLossDoesNotFallAreSaid) {
  EXPECT_THAT(said(1, 1.99), IsEmpty());
  EXPECT_THAT(said(1, 2),
              ElementsAre(AllOf(HasSubstr("lm_loss has a mean of 2 over the last 20 of its first 200 steps"),
                                HasSubstr("mixtune inspect"))));
  EXPECT_THAT(said(1, 2.1), testing::SizeIs(1));
  EXPECT_THAT(said(301, 2.1), IsEmpty()) << "a run that goes on may have learnt what it could";
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
