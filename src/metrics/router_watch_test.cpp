#include "metrics/router_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace mixtune {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Of 8 experts, 2 a token.
constexpr double kEven = 0.25;

class Routers : public testing::Test {
 protected:
  std::vector<std::string> look() { return watch_.look(record_); }
  void quiet(int steps) {
    for (int i = 0; i < steps; ++i) EXPECT_THAT(look(), IsEmpty()) << i;
  }
  // What is said in so many steps.
  std::vector<std::string> all(int steps) {
    std::vector<std::string> said;
    for (int i = 0; i < steps; ++i) std::ranges::move(look(), std::back_inserter(said));
    return said;
  }
  void set_share(double share) {
    record_.expert_share = share;
    record_.expert_imbalance = share / kEven;
  }

  RouterWatch watch_;
  StepRecord record_ = {.router_grad_norm = 1,
                        .expert_imbalance = 1.6,
                        .expert_share = 0.4,
                        .router_entropy = 0.9,
                        .router_logit_scale = 2};
};

// Trained layers of Mixtral have experts with twice the mean, and data of one kind more.
TEST_F(Routers, ThatAreHealthyAreQuiet) {
  for (int i = 0; i < 300; ++i) {
    set_share(kEven * (1.6 + 0.4 * (i % 7) / 6));
    record_.router_grad_norm = 1 + i % 5;
    record_.router_entropy = 0.85 + 0.02 * (i % 3);
    record_.router_logit_scale = 3 + 0.01 * i;
    EXPECT_THAT(look(), IsEmpty()) << i;
  }
}

TEST_F(Routers, AnExpertThatGetsNearlyAllIsSaidInTheThirdStep) {
  set_share(0.93);  // 1/4 + 9/10 of 3/4 is 0.925
  quiet(2);
  EXPECT_THAT(look(), ElementsAre(AllOf(HasSubstr("expert_share 0.93: for 3 steps one expert"),
                                        HasSubstr("0.25 is balance"), HasSubstr("raise moe_aux_loss_coeff"))));
  quiet(10);
  set_share(0.92);
  quiet(1);
  set_share(0.99);
  quiet(2);
  EXPECT_THAT(look(), testing::SizeIs(1));
}

TEST_F(Routers, StepsInARowAreMeant) {
  for (int i = 0; i < 9; ++i) {
    set_share(i % 3 == 2 ? 0.5 : 0.9);
    quiet(1);
  }
}

// Every expert gets every token.
TEST_F(Routers, WithAsManyExpertsATokenAsThereAreCannotCollapse) {
  record_.expert_share = record_.expert_imbalance = 1;
  quiet(10);
}

TEST_F(Routers, AMeanImbalanceOverHalfAsMuchAgainAsItsSmallest) {
  record_.expert_imbalance = 1.2;
  record_.expert_share = 0.3;
  quiet(20);
  record_.expert_imbalance = 2.4;
  record_.expert_share = 0.6;
  quiet(5);  // means up to 1.5
  record_.expert_imbalance = 2.8;
  record_.expert_share = 0.7;
  quiet(3);  // 1.74
  EXPECT_THAT(all(20), ElementsAre(AllOf(HasSubstr("expert_imbalance has a mean of "), HasSubstr("moe_aux_loss"))));
  record_.expert_imbalance = 1.2;
  record_.expert_share = 0.3;
  quiet(30);
}

TEST_F(Routers, AnEntropyUnderHalfOfItsLargestMean) {
  quiet(20);
  record_.router_entropy = 0.46;
  quiet(25);
  record_.router_entropy = 0.3;
  EXPECT_THAT(all(30), ElementsAre(AllOf(HasSubstr("router_entropy has a mean of "), HasSubstr("largest, 0.9"),
                                         HasSubstr("raise moe_z_loss_coeff"))));
}

TEST_F(Routers, LogitsOverThreeTimesTheirSmallestMean) {
  quiet(20);
  record_.router_logit_scale = 5.9;
  quiet(25);
  record_.router_logit_scale = 8;
  EXPECT_THAT(all(30), ElementsAre(AllOf(HasSubstr("router_logit_scale has a mean of "),
                                         HasSubstr("over 6, 3 times its smallest"), HasSubstr("moe_z_loss_coeff"))));
}

// A router that was just made has logits near 0, and grows.
TEST_F(Routers, SmallLogitsAreNoMeasure) {
  record_.router_logit_scale = 0.05;
  quiet(20);
  record_.router_logit_scale = 2.9;
  quiet(30);
}

TEST_F(Routers, ThatDropMoreThanAFewInAHundred) {
  record_.drop_rate = 0.049;
  quiet(30);
  record_.drop_rate = 0.06;
  EXPECT_THAT(all(30), ElementsAre(AllOf(HasSubstr("drop_rate has a mean of 0.05"), HasSubstr("over 0.05"),
                                         HasSubstr("raise moe_expert_capacity_factor"))));
}

TEST_F(Routers, AGradientOverTenTimesItsMedian) {
  quiet(20);
  record_.router_grad_norm = 10;
  quiet(1);
  record_.router_grad_norm = 10.1;
  EXPECT_THAT(look(), ElementsAre(AllOf(HasSubstr("router_grad_norm 10.1 is over 10 times 1, the median"),
                                        HasSubstr("lower the routers' learning rate"))));
  quiet(3);
}

TEST_F(Routers, AGradientThatVanishes) {
  quiet(20);
  record_.router_grad_norm = 0.009;
  quiet(2);
  EXPECT_THAT(look(), ElementsAre(AllOf(HasSubstr("router_grad_norm 0.009 is for 3 steps under 0.01 times 1"),
                                        HasSubstr("look at expert_share"))));
  quiet(5);
}

TEST_F(Routers, ThatAreFrozenHaveNoGradientToWatch) {
  record_.router_grad_norm = 0;
  quiet(150);
}

// As of records that an older program wrote.
TEST_F(Routers, WhatIsNotThereIsNotWatched) {
  record_.router_grad_norm = record_.expert_imbalance = record_.expert_share = record_.router_entropy =
      record_.router_logit_scale = std::numeric_limits<double>::quiet_NaN();
  quiet(50);
  RouterWatch none;
  for (int i = 0; i < 50; ++i) EXPECT_THAT(none.look({}), testing::Each("")) << i;
}

}  // namespace
}  // namespace mixtune
