#include "train/schedule.h"

#include <gtest/gtest.h>

namespace mixtune {
namespace {

// A case with the learning rates that transformers 5's get_scheduler gives for it.
struct ScheduleCase {
  Schedule schedule;
  int64_t warmup, total;
  std::vector<double> rates;
};

TEST(Schedule, MatchesTransformers) {
  const double c1 = 0.9045084971874737, c2 = 0.6545084971874737;  // (1 + cos(pi / 5)) / 2, (1 + cos(2 pi / 5)) / 2
  for (const ScheduleCase& c : {ScheduleCase{Schedule::kConstant, 2, 5, {1, 1, 1, 1, 1}},
                                ScheduleCase{Schedule::kConstantWithWarmup, 2, 5, {0, 0.5, 1, 1, 1}},
                                ScheduleCase{Schedule::kLinear, 2, 5, {0, 0.5, 1, 2.0 / 3, 1.0 / 3}},
                                ScheduleCase{Schedule::kLinear, 0, 4, {1, 0.75, 0.5, 0.25}},
                                ScheduleCase{Schedule::kCosine, 0, 5, {1, c1, c2, 1 - c2, 1 - c1}},
                                ScheduleCase{Schedule::kCosine, 2, 7, {0, 0.5, 1, c1, c2, 1 - c2, 1 - c1}},
                                ScheduleCase{Schedule::kLinear, 9, 3, {0, 1.0 / 9, 2.0 / 9}}}) {
    const OptimizerSettings settings = {
        .learning_rate = 0.5, .lr_scheduler_type = c.schedule, .warmup_steps = c.warmup};
    for (int64_t step = 0; step < static_cast<int64_t>(c.rates.size()); ++step)
      EXPECT_NEAR(learning_rate(settings, step, c.total), 0.5 * c.rates[step], 1e-15) << "step " << step;
  }
}

TEST(Schedule, WarmupRatioIsRoundedUpAndStepsWin) {
  EXPECT_EQ(warmup_steps({.warmup_ratio = 0.1}, 25), 3);
  EXPECT_EQ(warmup_steps({.warmup_steps = 7, .warmup_ratio = 0.1}, 25), 7);
}

}  // namespace
}  // namespace mixtune
