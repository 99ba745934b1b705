// The capacity of experts through the program: what is said, recorded, and held to when a run goes on.
#include "rank_runs.h"

namespace mixtune {
namespace {

class CapacityRuns : public RankRuns {
 protected:
  Outcome trained(const std::string& out, Args more) const {
    more.insert(more.begin(), {"--max_steps=2", "--per_device_train_batch_size=2"});
    return done(train(out, more));
  }
  std::vector<double> numbers(const std::string& out, const char* field) const {
    std::vector<double> all;
    for (const auto& record : metrics(out))
      if (record.contains(field)) all.push_back(record[field]);
    return all;
  }
};

const char* const kHalf = "--moe_expert_capacity_factor=0.5";

TEST_F(CapacityRuns, SayAndRecordWhatIsDropped) {
  EXPECT_EQ(count_of(trained("all", {}).err, "capacity"), 0);
  EXPECT_EQ(numbers("all", "drop_rate"), (std::vector<double>{0, 0}));
  const Outcome half = trained("half", {kHalf});
  expect_part(half.err,
              "warning: --moe_expert_capacity_factor: 0.5: tokens beyond an expert's capacity are dropped in "
              "training alone");
  for (const double rate : numbers("half", "drop_rate")) {
    EXPECT_GT(rate, 0.45);  // at most half of the pairs is kept, but for rounding up
    EXPECT_LT(rate, 1);
  }
  for (const double rate : numbers("half", "dropped_tokens_rate")) EXPECT_LT(rate, 1);
  EXPECT_NE(numbers("half", "lm_loss")[0], numbers("all", "lm_loss")[0]);
  trained("ample", {"--moe_expert_capacity_factor=1000"});
  EXPECT_EQ(read(path("ample/model.safetensors")), read(path("all/model.safetensors")));
}

// Drops come before rows are sent.
TEST_F(CapacityRuns, DropTheSameWhereverExpertsAre) {
  for (const char* policy : {"probs", "position"}) {
    const std::string choice = std::string("--moe_token_drop_policy=") + policy, one = std::string("one ") + policy,
                      two = std::string("two ") + policy;
    trained(one, {"--nproc=2", kHalf, choice});
    trained(two, {"--nproc=2", "--expert_model_parallel_size=2", kHalf, choice});
    expect_same_metrics(one, two);
    EXPECT_EQ(numbers(one, "drop_rate"), numbers(two, "drop_rate"));
    EXPECT_EQ(numbers(one, "dropped_tokens_rate"), numbers(two, "dropped_tokens_rate"));
  }
}

TEST_F(CapacityRuns, PaddedOnAnyLayout) {
  const char* const kPad = "--moe_pad_expert_input_to_capacity=true";
  trained("one", {"--nproc=2", "--moe_expert_capacity_factor=0.2", kPad});
  trained("two", {"--nproc=2", "--expert_model_parallel_size=2", "--moe_expert_capacity_factor=0.2", kPad});
  expect_same_metrics("one", "two");
  EXPECT_EQ(numbers("one", "drop_rate"), numbers("two", "drop_rate"));
  const Outcome refused = run(train("out", {kPad}));
  EXPECT_EQ(refused.code, 2);
  expect_one_error(refused, {"--moe_pad_expert_input_to_capacity", "set moe_expert_capacity_factor"});
}

TEST_F(CapacityRuns, GoOnWithTheSameAlone) {
  trained("out", {kHalf, "--save_steps=1"});
  fs::remove_all(path("out/checkpoint-2"));
  const auto go_on = [&](const Args& more) {
    Args args = {"--max_steps=2", "--per_device_train_batch_size=2", "--save_steps=1", "--resume_from_checkpoint=auto"};
    args.insert(args.end(), more.begin(), more.end());
    return run(train("out", args));
  };
  const Outcome refused = go_on({"--moe_expert_capacity_factor=1"});
  EXPECT_EQ(refused.code, 2);
  expect_one_error(refused, {"moe_expert_capacity_factor was 0.5, is 1", "--allow_changes moe_expert_capacity_factor"});
  const Outcome allowed = go_on({"--moe_expert_capacity_factor=1", "--allow_changes=moe_expert_capacity_factor"});
  EXPECT_EQ(allowed.code, 0) << allowed.err;
}

}  // namespace
}  // namespace mixtune
