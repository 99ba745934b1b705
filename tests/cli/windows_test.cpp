// `dataset_format: megatron` through the program itself.
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "program.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The committed data sets: "windows" of 12 sequences and 98 tokens, "more" of 9 and 100.
class WindowRuns : public testing::Test {
 protected:
  WindowRuns() {
    make_model(work_.path() / "model");
    for (const char* name : {"windows.bin", "windows.idx", "more.bin", "more.idx"})
      fs::copy_file(source_path("tests/fixtures/indexed/") + name, work_.path() / name);
  }

  Outcome train(std::vector<std::string> more, int code = 0) {
    more.insert(more.begin(), {"train", "--model_name_or_path=model", "--output_dir=out", "--overwrite_output_dir",
                               "--dataset_format", "megatron", "--per_device_train_batch_size=2"});
    Outcome outcome = run_mixtune(std::move(more), work_.path());
    EXPECT_EQ(outcome.code, code) << outcome.err;
    return outcome;
  }

  std::vector<json> records() const {
    std::vector<json> records;
    std::istringstream lines(read(work_.path() / "out/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) records.push_back(json::parse(line));
    return records;
  }

  TempFolder work_;
};

TEST_F(WindowRuns, ABlendTrainsAndValidates) {
  const Outcome outcome = train({"--data-path", "0.3 windows 0.7 more", "--seq-length", "8", "--split", "7,3",
                                 "--max_steps=2", "--eval_steps=2", "--reset_position_ids", "--eod_mask_loss"});
  expect_part(outcome.err, "windows: split 7,3: 8 sequences to train on, 4 for validation, 0 for a test");
  expect_part(outcome.err, "windows: the documents in one are isolated");
  const std::vector<json> all = records();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0]["tokens"], 16);
  EXPECT_LT(all[0]["target_tokens"], 16);
  EXPECT_GT(all[2]["eval_loss"], 0);
  expect_part(read(work_.path() / "out/config.resolved.yaml"), "max_seq_length: 8\n");
}

TEST_F(WindowRuns, RanksTrainOnTheSameBatches) {
  const std::vector<std::string> run = {"--data_path", "0.3 windows 0.7 more", "--seq_length=8", "--max_steps=3",
                                        "--global_batch_size=4"};
  const auto losses = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = run;
    args.insert(args.end(), more.begin(), more.end());
    train(args);
    std::vector<double> found;
    for (const json& record : records()) found.push_back(record["lm_loss"]);
    return found;
  };
  const std::vector<double> alone = losses({}), both = losses({"--nproc=2", "--device=cpu"});
  ASSERT_EQ(alone.size(), 3u);
  ASSERT_EQ(both.size(), 3u);
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_NEAR(both[i], alone[i], 1e-5);
}

TEST_F(WindowRuns, ADryRunCountsWindows) {
  const Outcome outcome =
      train({"--train_file=windows", "--max_seq_length=8", "--num_train_epochs=2", "--split=2,1", "--dry-run"});
  expect_part(outcome.err, "documents in one see each other, as by Megatron's default");
  // The data has 8 sequences of 76 tokens, and 4 of 22.
  expect_part(outcome.out, "# an epoch: 9 windows of 8 tokens; 72 tokens, of which 72 (100.0%) are trained\n");
  expect_part(outcome.out, "# validation: 2 windows, 16 tokens, 16 with a loss\n");
  expect_part(outcome.out, "# the run: 9 steps of 2 rows on 1 rank, 2.00 epochs\n");
  write(work_.path() / "again.yaml", outcome.out);
  EXPECT_EQ(run_mixtune({"train", "again.yaml", "--dry-run"}, work_.path()).out, outcome.out);
}

TEST_F(WindowRuns, EvaluateTakesThemToo) {
  const Outcome outcome = run_mixtune({"evaluate", "model", "--file=windows", "--dataset_format=megatron",
                                       "--seq_length=8", "--reset_attention_mask", "--json"},
                                      work_.path());
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(json::parse(outcome.out)["tokens"], 96);
}

TEST_F(WindowRuns, AStepWithoutATargetIsSkipped) {
  std::string lines;
  for (int i = 0; i < 10; ++i)
    lines += "{\"input_ids\": [1, 5, 6, 7, 8, 2], \"labels\": [-100, -100, -100, -100, -100, 2]}\n";
  write(work_.path() / "data.jsonl", lines);
  const Outcome made = run_mixtune(
      {"preprocess", "--train_file=data.jsonl", "--output=masked", "--output_format=indexed"}, work_.path());
  ASSERT_EQ(made.code, 0) << made.err;
  const Outcome outcome = train(
      {"--data_path=masked", "--seq_length=2", "--eod_mask_loss", "--shuffle=false", "--max_steps=3", "--split=1"});
  expect_part(outcome.err, "step 1: none of its tokens is a target; weights stay as they are");
  const std::vector<json> all = records();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0]["target_tokens"], 0);
  EXPECT_EQ(all[2]["target_tokens"], 1);
}

TEST_F(WindowRuns, WhatDoesNotFitIsRefused) {
  const std::string jsonl = "{\"text\": \"a\"}\n";
  write(work_.path() / "data.jsonl", jsonl);
  const auto refusal = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"--max_seq_length=8"};
    args.insert(args.end(), more.begin(), more.end());
    return train(args, 2).err;
  };
  expect_part(refusal({"--data_path=data.jsonl"}), "'data.jsonl' is no indexed data, of which windows are cut");
  expect_part(refusal({"--data_path=windows", "--packing"}),
              "--packing: has no meaning with 'dataset_format: megatron'");
  expect_part(refusal({"--data_path=windows", "--long_documents=split"}), "--long_documents: has no meaning with");
  expect_part(refusal({"--data_path=windows", "--validation_split_percentage=5"}), "use split: 990,9,1");
  expect_part(refusal({"--data_path=windows", "--reset_position_ids", "--reset_attention_mask=false"}),
              "--reset_position_ids: reset_position_ids without reset_attention_mask");
  expect_part(refusal({"--data_path=windows", "--split=9,1", "--validation_file=more"}),
              "there is a validation_file too");
  expect_part(refusal({"--data_path=windows", "--split=99,1"}),
              "--split: '99,1' gives validation 0 of the 12 sequences of windows, without a token");
  expect_part(refusal({"--data_path=windows", "--seq_length=9"}), "given twice");
  const Outcome packed =
      run_mixtune({"train", "--model_name_or_path=model", "--output_dir=out", "--data_path=windows", "--eod_mask_loss"},
                  work_.path());
  expect_part(packed.err, "--eod_mask_loss: is of the windows of 'dataset_format: megatron'; set that, or remove it");
  expect_part(
      run_mixtune({"preprocess", "--train_file=windows", "--output=x.jsonl", "--dataset_format=megatron"}, work_.path())
          .err,
      "is how train reads what preprocess writes");
}

}  // namespace
}  // namespace mixtune
