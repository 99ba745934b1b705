// Runs whose loss leaves what it was: a warning, or the end where that is asked for.
#include "rank_runs.h"

namespace mixtune {
namespace {

constexpr int kEasySteps = 30, kBadStep = kEasySteps + 1;

class Divergence : public RankRuns {
 protected:
  // So many rows of two ranks' steps that soon have a small loss; then others, unlike them and each other, and again.
  void write_data(int bad_steps, int steps_after) {
    std::string text;
    const auto add = [&](int first) {
      text += fmt::format("{{\"input_ids\": [1, {}, {}, {}, {}]}}\n", first, first + 1, first + 2, first + 3);
    };
    for (int i = 0; i < 2 * kEasySteps; ++i) add(20);
    for (int i = 0; i < 2 * bad_steps; ++i) add(100 + 40 * i);
    for (int i = 0; i < 2 * steps_after; ++i) add(20);
    write(path("rows.jsonl"), text);
  }

  Outcome run_rows(const Args& more) const {
    Args args = {"train",
                 "--model_name_or_path=model",
                 "--train_file=rows.jsonl",
                 "--output_dir=out",
                 "--num_train_epochs=1",
                 "--shuffle=false",
                 "--save_steps=4",
                 "--learning_rate=1e-2",
                 "--lr_scheduler_type=constant",
                 "--max_seq_length=64"};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  }

  void expect_ended(const Args& layout) const {
    Args args = layout;
    args.insert(args.end(), {"--stop_on_divergence", "--save_total_limit=1"});
    const Outcome outcome = run_rows(args);
    EXPECT_EQ(outcome.code, 17) << outcome.err;
    expect_one_error(outcome, {fmt::format("step {}: training diverged: lm_loss ", kBadStep + 4), "for 5 steps over"});
    EXPECT_EQ(count_of(outcome.err, fmt::format("warning: step {}: lm_loss ", kBadStep)), 1) << outcome.err;
    EXPECT_EQ(metrics("out").size(), kBadStep + 4);
    EXPECT_EQ(read(path("out/latest")), "checkpoint-28\n");
    EXPECT_TRUE(fs::exists(path("out/checkpoint-28/manifest.json"))) << "of before the loss was bad";
    EXPECT_FALSE(fs::exists(path("out/checkpoint-32")));
    fs::remove_all(path("out"));
  }
};

TEST_F(Divergence, EndsTheRunWhereAsked) {
  write_data(10, 0);
  expect_ended({"--per_device_train_batch_size=2"});
  expect_ended({"--per_device_train_batch_size=1", "--nproc=2", "--expert_model_parallel_size=2"});
}

TEST_F(Divergence, IsAWarningOtherwise) {
  write_data(10, 0);
  const Outcome outcome = run_rows({"--per_device_train_batch_size=2"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(count_of(outcome.err, ": lm_loss "), 1) << outcome.err;
  EXPECT_EQ(metrics("out").size(), kEasySteps + 10);
}

// The checkpoint of step 32 waits until the loss is back.
TEST_F(Divergence, ALossThatComesBackEndsNothing) {
  write_data(3, 7);
  const Outcome outcome = run_rows({"--per_device_train_batch_size=2", "--stop_on_divergence"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(fs::exists(path("out/checkpoint-28")));
  EXPECT_FALSE(fs::exists(path("out/checkpoint-32")));
  EXPECT_TRUE(fs::exists(path("out/checkpoint-34")));
  EXPECT_TRUE(fs::exists(path("out/checkpoint-36")));
}

}  // namespace
}  // namespace mixtune
