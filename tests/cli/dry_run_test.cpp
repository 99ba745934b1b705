// `train --dry-run` tells what a run would do, without its device.
#include <gtest/gtest.h>

#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

class DryRun : public testing::Test {
 protected:
  void SetUp() override {
    make_model(path("model"));
    std::string text;
    for (int i = 0; i < 13; ++i) text += "{\"input\": \"Define: otter\", \"output\": \"an animal that swims\"}\n";
    write(path("data.jsonl"), text);
    write(
        path("run.yaml"),
        "model_name_or_path: model\ntrain_file: data.jsonl\noutput_dir: out\nmax_seq_length: 64\nnum_train_epochs: 2\n"
        "per_device_train_batch_size: 2\n");
  }
  fs::path path(const std::string& name) const { return work_.path() / name; }

  Outcome run(const std::vector<std::string>& more, int code = 0) const {
    std::vector<std::string> args = {"train", "run.yaml"};
    args.insert(args.end(), more.begin(), more.end());
    Outcome outcome = run_mixtune(args, work_.path());
    EXPECT_EQ(outcome.code, code) << outcome.err;
    return outcome;
  }

  TempFolder work_;
};

// The number before or after a word of the comments.
int64_t number(const std::string& out, const std::string& pattern) {
  std::smatch match;
  if (!std::regex_search(out, match, std::regex(pattern))) {
    ADD_FAILURE() << "no '" << pattern << "' in: " << out;
    return -1;
  }
  return std::stoll(match[1]);
}

TEST_F(DryRun, SaysWhatTheRunThenDoes) {
  const std::string out = run({"--dry-run"}).out;
  EXPECT_FALSE(fs::exists(path("out")));
  EXPECT_NE(out.find("seed: 42\n"), std::string::npos) << out;
  run({"--device=cpu"});
  std::istringstream lines(read(path("out/metrics.jsonl")));
  int64_t steps = 0, tokens = 0, targets = 0;
  for (std::string line; std::getline(lines, line); ++steps) {
    const auto record = nlohmann::json::parse(line);
    tokens += record["tokens"].get<int64_t>();
    targets += record["target_tokens"].get<int64_t>();
  }
  EXPECT_EQ(number(out, "# the run: (\\d+) steps of 2 rows on 1 rank,"), steps);
  EXPECT_EQ(number(out, "# an epoch: 13 documents in (\\d+) rows of up to 64 tokens"), 13);
  EXPECT_EQ(2 * number(out, "; (\\d+) tokens, of which"), tokens);
  EXPECT_EQ(2 * number(out, "of which (\\d+) \\("), targets);
  EXPECT_NE(out.find("# memory of each rank: "), std::string::npos) << out;
}

TEST_F(DryRun, NeedsNoGpu) {
  const std::string out =
      run({"--dry-run", "--precision=bf16", "--nproc=2", "--expert_model_parallel_size=2", "--global_batch_size=8"})
          .out;
  EXPECT_NE(out.find("gradient_accumulation_steps: 2\n"), std::string::npos) << out;
  EXPECT_EQ(number(out, "steps of (\\d+) rows on 2 ranks,"), 8);
  EXPECT_NE(out.find("# memory of each GPU: "), std::string::npos) << out;
  EXPECT_NE(out.find(" with even routing, "), std::string::npos) << out;
}

TEST_F(DryRun, OneOfManyRanksSpeaks) {
  const auto rank = [&](int number) {
    return run_shell("RANK=" + std::to_string(number) + " LOCAL_RANK=" + std::to_string(number) +
                         " WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 \"$0\" train run.yaml --dry-run",
                     work_.path());
  };
  EXPECT_NE(rank(0).out.find("on 2 ranks,"), std::string::npos);
  const Outcome other = rank(1);
  EXPECT_EQ(other.code, 0);
  EXPECT_EQ(other.out + other.err, "");
}

TEST_F(DryRun, WhatItPrintsIsAConfiguration) {
  const std::string out = run({"--dry-run", "--seed=4", "--packing"}).out;
  EXPECT_NE(out.find("seed: 4\n"), std::string::npos) << out;
  EXPECT_NE(out.find("packing: true\n"), std::string::npos) << out;
  write(path("run.yaml"), out);
  EXPECT_EQ(run({"--dry-run"}).out, out);
}

TEST_F(DryRun, LooksAtTheRanksAndTheBatch) {
  EXPECT_NE(run({"--dry-run", "--nproc=2", "--expert_model_parallel_size=3"}, 2).err.find("does not divide 2 ranks"),
            std::string::npos);
  EXPECT_NE(run({"--dry-run", "--nproc=2", "--global_batch_size=6"}, 2).err.find("is no multiple of"),
            std::string::npos);
  fs::create_directories(path("out/checkpoint-5"));
  write(path("out/metrics.jsonl"), "{\"step\": 1}\n");
  write(path("out/latest"), "checkpoint-5\n");
  EXPECT_NE(run({"--dry-run"}, 2).err.find("overwrite_output_dir"), std::string::npos);
}

}  // namespace
}  // namespace mixtune
