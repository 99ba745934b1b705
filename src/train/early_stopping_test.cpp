#include "train/early_stopping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace mixtune {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void add(EarlyStopping& stopping, const std::vector<double>& losses) {
  for (const double loss : losses) {
    const EvalRecord record = {.eval_loss = loss, .eval_perplexity = std::exp(loss)};
    stopping.add(metrics_of({&record, 1}));
  }
}

int64_t since(const EarlyStopping& stopping) {
  return stopping.improvement().evaluations_since;
}

TEST(EarlyStopping, EndsAfterSoManyWithoutImprovement) {
  EarlyStopping stopping({.metric = "eval_loss", .patience = 2}, {});
  add(stopping, {5, 4, 4, 3, 3.5});
  EXPECT_FALSE(stopping.has_ended());
  EXPECT_EQ(since(stopping), 1);
  add(stopping, {3});
  EXPECT_TRUE(stopping.has_ended());
  EXPECT_EQ(stopping.str(), "2 evaluations without improvement on eval_loss 3");
}

// As in transformers, what is better by less than the threshold is the new best all the same.
TEST(EarlyStopping, AThresholdIsBetweenNeighboursInTheOrderOfBests) {
  EarlyStopping stopping({.metric = "eval_loss", .patience = 9, .threshold = 0.5}, {});
  add(stopping, {5, 4.75, 4.5, 4.25});
  EXPECT_EQ(since(stopping), 3);
  EXPECT_EQ(stopping.improvement().best, 4.25);
  add(stopping, {3.75});
  EXPECT_EQ(since(stopping), 4) << "exactly the threshold is not over it";
  add(stopping, {3});
  EXPECT_EQ(since(stopping), 0);
}

TEST(EarlyStopping, WhatIsNotFiniteIsNoImprovement) {
  EarlyStopping stopping({.metric = "eval_perplexity", .patience = 3}, {});
  add(stopping, {kNaN, 1000});  // whose perplexity is infinite
  EXPECT_EQ(since(stopping), 2);
  EXPECT_FALSE(stopping.improvement().best);
  EXPECT_EQ(stopping.str(), "2 evaluations without improvement on eval_perplexity");
  add(stopping, {2});
  EXPECT_EQ(since(stopping), 0);
  add(stopping, {kNaN, kNaN, kNaN});
  EXPECT_TRUE(stopping.has_ended());
}

TEST(EarlyStopping, WithoutPatienceItCountsAlone) {
  EarlyStopping stopping({.metric = "eval_loss"}, {});
  add(stopping, {1, 2, 3});
  EXPECT_EQ(since(stopping), 2);
  EXPECT_FALSE(stopping.has_ended());
}

TEST(EarlyStopping, GoesOnFromTheCheckpoint) {
  EarlyStopping first({.metric = "eval_loss", .patience = 3}, {});
  add(first, {2, 3, 3});
  EarlyStopping second({.metric = "eval_loss", .patience = 3}, first.improvement());
  add(second, {2.5});
  EXPECT_TRUE(second.has_ended());
  const EarlyStopping other({.metric = "eval_perplexity", .patience = 1}, first.improvement());
  EXPECT_EQ(other.improvement(), (Improvement{.metric = "eval_perplexity"}));
}

}  // namespace
}  // namespace mixtune
