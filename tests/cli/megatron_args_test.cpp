// `mixtune train --megatron_args` through the program itself.
#include "base/test_paths.h"
#include "rank_runs.h"

namespace mixtune {
namespace {

class MegatronArgs : public RankRuns {
 protected:
  void SetUp() override {
    RankRuns::SetUp();
    fs::copy_file(source_path("tests/fixtures/megatron/run.args"), path("run.args"));
  }

  Outcome trained(const Args& more) const {
    Args args = {"train", "--model_name_or_path=model", "--train_file=data.jsonl"};
    args.insert(args.end(), more.begin(), more.end());
    if (on_gpus()) args.push_back("--device=cuda");
    return run(args);
  }

  std::string resolved(const std::string& key) const {
    for (const std::string& line : lines_of(read(path("out/config.resolved.yaml"))))
      if (line.starts_with(key + ": ")) return line.substr(key.size() + 2);
    return "";
  }
};

TEST_F(MegatronArgs, OfALaunchScriptAreARun) {
  const Outcome outcome = trained({"--megatron-args", "run.args"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* line :
       {"mixtune: --lr 1e-3 -> learning_rate: 1e-3\n", "--lr-decay-style cosine -> lr_scheduler_type: ",
        "--num-experts 2 -> held against config.json: num_local_experts\n",
        "--log-throughput -> not needed: every step has its TFLOP/s",
        "router loss: aux_loss, coefficient 0.02 (in each of 1 layers)\n"})
    expect_part(outcome.err, line);
  for (const auto& [key, value] : std::map<std::string, std::string>{{"learning_rate", "0.001"},
                                                                     {"lr_scheduler_type", "cosine_with_min_lr"},
                                                                     {"lr_scheduler_kwargs", "{\"min_lr\": 0.0001}"},
                                                                     {"per_device_train_batch_size", "2"},
                                                                     {"global_batch_size", "4"},
                                                                     {"max_steps", "4"},
                                                                     {"weight_decay", "0.1"},
                                                                     {"adam_beta2", "0.95"},
                                                                     {"router_aux_loss_coef", "0"},
                                                                     {"moe_aux_loss_coeff", "[\"0.02\"]"},
                                                                     {"seed", "7"},
                                                                     {"max_seq_length", "16"}})
    EXPECT_EQ(resolved(key), value) << key;
  EXPECT_TRUE(fs::exists(path("out/checkpoint-2")));
  EXPECT_EQ(metrics("out").size(), 4u);
}

TEST_F(MegatronArgs, AsWordsOrYamlToo) {
  fs::copy_file(source_path("tests/fixtures/megatron/sections.yaml"), path("sections.yaml"));
  ASSERT_EQ(trained({"--megatron_args", "--num-layers 1 --train-iters 2 --save out --lr 1e-4 --global-batch-size 8",
                     "--learning_rate=2e-4"})
                .code,
            0);
  EXPECT_EQ(resolved("learning_rate"), "0.0002");  // a flag goes first
  EXPECT_EQ(resolved("max_steps"), "2");
  const Outcome outcome = trained({"--megatron_args=sections.yaml", "--output_dir=out", "--overwrite_output_dir"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(resolved("max_steps"), "3");
}

TEST_F(MegatronArgs, SayTheSameToEveryRank) {
  if (on_gpus() && promised_gpus() < 2) GTEST_SKIP() << "needs two GPUs";
  const Outcome outcome = trained({"--nproc=2", "--megatron_args",
                                   "--expert-model-parallel-size 2 --moe-aux-loss-coeff 0.3 --micro-batch-size 1 "
                                   "--global-batch-size 4 --train-iters 2 --save out"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(count_of(outcome.err, "--moe-aux-loss-coeff 0.3 -> "), 1) << outcome.err;
  EXPECT_EQ(resolved("gradient_accumulation_steps"), "2");
}

TEST_F(MegatronArgs, OfAnotherModelAreRefused) {
  const auto refused = [&](const std::string& words, const Args& parts) {
    const Outcome outcome = trained({"--output_dir=out", "--megatron_args", words});
    EXPECT_EQ(outcome.code, 2) << words;
    expect_one_error(outcome, parts);
    EXPECT_FALSE(fs::exists(path("out")));
  };
  refused("--num-experts 64",
          {"--megatron_args: --num-experts: is 64, but config.json of model has num_local_experts 2",
           "name the model that the arguments are of"});
  refused("--num-experts few", {"--num-experts: 'few' is not a number"});
  refused("--rotary-base 1000000", {"has rope_theta 10000"});
  refused("untie-embeddings-and-output-weights", {"untie-embeddings-and-output-weights"});
  refused("--moe-pad-expert-input-to-capacity",
          {"--moe-pad-expert-input-to-capacity: there is no capacity to pad to; set moe_expert_capacity_factor"});
  EXPECT_EQ(trained({"--megatron_args"}).code, 2);
}

// The checkpoint has the rows that the run added.
TEST_F(MegatronArgs, OfTheModelThatTheRunBeganWithGoOn) {
  write(path("model/added_tokens.json"), R"({"<|im_start|>": 4096, "<|im_end|>": 4097})");
  const std::string kWords = "--vocab-size 4096 --seq-length 16 --global-batch-size 8 --train-iters 2 --save out";
  const auto go = [&](const std::string& words) {
    return trained(
        {"--resize_vocabulary", "--resume_from_checkpoint=auto", "--save_steps=1", "--megatron_args", words});
  };
  const Outcome first = go(kWords);
  ASSERT_EQ(first.code, 0) << first.err;
  fs::remove_all(path("out/checkpoint-2"));
  const Outcome again = go(kWords);
  EXPECT_EQ(again.code, 0) << again.err;
  expect_part(again.err, "the run goes on after step 1");
  const auto refused = [&](const std::string& from, const std::string& to, const std::string& error) {
    std::string words = kWords;
    const Outcome outcome = go(words.replace(words.find(from), from.size(), to));
    EXPECT_EQ(outcome.code, 2);
    expect_one_error(outcome, {error});
  };
  refused("4096", "4099", "--vocab-size: is 4099, but config.json of out/checkpoint-2 has vocab_size 4098");
  refused("--vocab", "--hidden-size 32 --vocab", "--hidden-size: is 32, but config.json of ");
}

}  // namespace
}  // namespace mixtune
