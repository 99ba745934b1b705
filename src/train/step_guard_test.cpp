#include "train/step_guard.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {
namespace {

constexpr double kBad = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();

StepRecord record(double loss, double norm = 1) {
  return {.step = 7, .loss = loss, .lm_loss = loss, .grad_norm = norm};
}

void check(StepGuard& guard, double loss, double norm = 1) {
  StepRecord of_step = record(loss, norm);
  guard.check(of_step);
  EXPECT_EQ(of_step.skipped_steps, guard.skipped().count);
}

std::string ended(StepGuard& guard, double loss, double norm = 1) {
  try {
    check(guard, loss, norm);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kWentBad);
    return error.what();
  }
  return "";
}

TEST(StepGuard, WithoutTheKeyTheFirstBadStepEnds) {
  StepGuard guard({}, {});
  check(guard, 1);
  EXPECT_EQ(ended(guard, kBad).find("step 7: training went bad: loss nan, gradient norm 1; lower learning_rate"), 0u);
  EXPECT_NE(ended(guard, 1, kInfinity), "");
  EXPECT_EQ(guard.skipped(), SkippedSteps{});
}

TEST(StepGuard, SkipsSoManyInARow) {
  StepGuard guard({.skip_nonfinite_steps = 2}, {});
  const LogRecord log;
  for (int i = 0; i < 3; ++i) check(guard, kBad), check(guard, 1, kInfinity), check(guard, 1);
  EXPECT_EQ(guard.skipped(), (SkippedSteps{6, 0}));
  EXPECT_EQ(log.lines().size(), 6u);
  EXPECT_EQ(log.lines()[1].text,
            "step 7: loss 1, gradient norm inf: skipped, weights stay as they are (2 in a row, of 2 at most)");
  check(guard, kBad), check(guard, kBad);
  EXPECT_NE(ended(guard, kBad).find("gradient norm 1; 2 before it in a row were skipped"), std::string::npos);
  EXPECT_EQ(guard.skipped().count, 8);
}

TEST(StepGuard, CountsOnFromTheCheckpoint) {
  StepGuard guard({.skip_nonfinite_steps = 2, .say = false}, {.count = 5, .in_a_row = 1});
  const LogRecord log;
  check(guard, kBad);
  EXPECT_EQ(guard.skipped(), (SkippedSteps{6, 2}));
  EXPECT_NE(ended(guard, kBad), "");
  EXPECT_TRUE(log.lines().empty());
}

// A step that is not finite is neither over the limit nor under it.
TEST(StepGuard, ADivergedLossEndsTheRunWhereAsked) {
  StepGuard guard({.skip_nonfinite_steps = 1, .stop_on_divergence = true}, {}), warns({}, {});
  for (int i = 0; i < 20; ++i) check(guard, 2), check(warns, 2);
  for (int i = 0; i < 4; ++i) check(guard, 7), check(warns, 7);
  EXPECT_TRUE(guard.holds_saves());
  EXPECT_FALSE(warns.holds_saves());
  check(guard, kBad);
  EXPECT_EQ(ended(guard, 7).find("step 7: training diverged: lm_loss 7, for 5 steps over 6, 3 times its smallest mean"),
            0u);
  check(warns, 7);
}

TEST(StepGuard, SavesWaitUntilTheLossIsBack) {
  StepGuard guard({.stop_on_divergence = true}, {});
  for (int i = 0; i < 20; ++i) check(guard, 2);
  EXPECT_FALSE(guard.holds_saves());
  check(guard, 7);
  EXPECT_TRUE(guard.holds_saves());
  check(guard, 5);
  EXPECT_FALSE(guard.holds_saves());
}

}  // namespace
}  // namespace mixtune
