#include "train/schedule.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <string>

#include "base/error.h"
#include "base/json_value.h"
#include "base/test_paths.h"
#include "config/load.h"

namespace mixtune {
namespace {

// Every step of every case of scripts/make_schedule_fixtures.py, whose settings are read as a run's are.
TEST(Schedule, MatchesTransformersAndMegatron) {
  std::ifstream file(source_path("tests/fixtures/schedules.json"));
  std::map<std::string, int> of;
  for (const auto& each : nlohmann::json::parse(file)) {
    ++of[each["of"]];
    const Config config = parse_config(each["config"].dump(), "run.yaml");
    const int64_t total = each["total"];
    ASSERT_EQ(each["rates"].size(), static_cast<size_t>(total));
    for (int64_t step = 0; step < total; ++step) {
      const double expected = each["rates"][step], rate = learning_rate(config.optimizer, step, total);
      EXPECT_NEAR(rate, expected, 1e-12 * expected) << each["config"].dump() << ", step " << step << " of " << total;
    }
  }
  EXPECT_EQ(of["transformers"], 98);
  EXPECT_EQ(of["megatron-core"], 10);
}

TEST(Schedule, WarmupRatioIsRoundedUpAndStepsWin) {
  EXPECT_EQ(warmup_steps({.warmup_ratio = 0.1}, 25), 3);
  EXPECT_EQ(warmup_steps({.warmup_steps = 7, .warmup_ratio = 0.1}, 25), 7);
}

TEST(Schedule, TheLeastOfNothingIsNothing) {
  const Config config = parse_config(
      "learning_rate: 0\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 0}\n", "run.yaml");
  for (int64_t step = 0; step < 5; ++step) EXPECT_EQ(learning_rate(config.optimizer, step, 5), 0);
}

// The error or the warning.
std::string said_of_stages(const std::string& kwargs, int64_t total) {
  const Config config = parse_config(
      fmt::format("lr_scheduler_type: warmup_stable_decay\nwarmup_steps: 2\nlr_scheduler_kwargs: {}\n", kwargs),
      "run.yaml");
  try {
    return check_stages(config, total);
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(Schedule, StagesMustFitTheRun) {
  EXPECT_EQ(said_of_stages("{num_decay_steps: 8}", 10), "");
  EXPECT_EQ(said_of_stages("{num_decay_steps: 9}", 10),
            "run.yaml:3: lr_scheduler_kwargs: 2 steps of warm-up, 0 stable and 9 of decay are 11, but the run has 10; "
            "lower num_decay_steps, or remove num_stable_steps: it is what is left");
  EXPECT_EQ(said_of_stages("{num_decay_steps: 4, num_stable_steps: 4}", 10), "");
  EXPECT_THAT(said_of_stages("{num_decay_steps: 4, num_stable_steps: 3}", 10),
              testing::HasSubstr("are 9, but the run has 10; after them the learning rate stays"));
}

}  // namespace
}  // namespace mixtune
