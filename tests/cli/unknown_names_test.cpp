// Names that mixtune does not have, and files given where others belong, through the program itself.
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "program.h"

namespace mixtune {
namespace {

// Runs `mixtune args...` in a folder with a config and data. Every line it prints must be an error, with exit code 2.
std::vector<std::string> errors(const std::vector<std::string>& args, const std::string& config = "") {
  const TempFolder work;
  write(work.path() / "run.yaml", "model_name_or_path: model\ntrain_file: data.jsonl\noutput_dir: out\n" + config);
  for (const char* name : {"data.jsonl", "more.jsonl", "records"})
    write(work.path() / name, "{\"text\": \"one two\"}\n{\"text\": \"three\"}\n");
  const auto before = snapshot(work.path());
  const Outcome outcome = run_mixtune(args, work.path());
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(snapshot(work.path()), before);
  const std::string start = "mixtune: error: ";
  std::vector<std::string> lines;
  std::istringstream text(outcome.err);
  for (std::string line; std::getline(text, line);) {
    EXPECT_TRUE(line.starts_with(start)) << line;
    lines.push_back(line.substr(std::min(line.size(), start.size())));
  }
  return lines;
}

using Lines = std::vector<std::string>;
const std::string kRows = "use 'per_device_train_batch_size' (rows of a micro-batch on one rank)";
const std::string kSeeDocs = "of these; docs/coming-from.md says what other trainers' keys are called here";

TEST(UnknownNames, MicroBatchSizeIsNotGlobalBatchSize) {
  EXPECT_EQ(errors({"train", "run.yaml"}, "micro_batch_size: 2\ngradient_accumulation_steps: 8\n"),
            Lines{"run.yaml:4: unknown key 'micro_batch_size'; " + kRows});
  EXPECT_EQ(errors({"train", "run.yaml", "--micro-batch-size", "2"}),
            Lines{"command line: unknown flag '--micro-batch-size'; " + kRows});
}

TEST(UnknownNames, AllOfAConfigEachWithItsLine) {
  EXPECT_EQ(errors({"train", "run.yaml"},
                   "base_model: x\ntest_datasets:\n  - path: data.jsonl\n    type: alpaca\nsequence_len: 512\n"),
            (Lines{"run.yaml:4: unknown key 'base_model'; use 'model_name_or_path' (a folder)",
                   "run.yaml:5: unknown key 'test_datasets'; use 'validation_file' (the 'path' of each); nested values "
                   "are not allowed: see docs/coming-from.md",
                   "run.yaml:8: unknown key 'sequence_len'; use 'max_seq_length'", "run.yaml: 3 " + kSeeDocs}));
}

TEST(UnknownNames, AllOfACommandLine) {
  EXPECT_EQ(errors({"train", "run.yaml", "--use_dora", "true", "--learing_rate=1"}),
            (Lines{"command line: unknown flag '--use_dora'; not supported: adapters are plain LoRA (docs/adapters.md)",
                   "command line: unknown flag '--learing_rate'; did you mean '--learning_rate'?",
                   "command line: 2 " + kSeeDocs}));
}

TEST(UnknownNames, ValuesThatAreNotSupportedAreNotMisspelt) {
  const std::string mend = "precision: unknown value 'fp4'; not supported; fp8 and mxfp8 are the lowest";
  EXPECT_EQ(errors({"train", "run.yaml", "--precision", "fp4"}), Lines{"--" + mend});
  EXPECT_EQ(errors({"train", "run.yaml"}, "precision: fp4\n"), Lines{"run.yaml:4: " + mend});
}

TEST(UnknownNames, CommandsAndSubcommands) {
  EXPECT_EQ(errors({"trian"}), Lines{"command line: unknown command 'trian'; did you mean 'train'?"});
  EXPECT_EQ(errors({"bench", "kernel"}), Lines{"command line: unknown command 'kernel'; did you mean 'kernels'?"});
  EXPECT_EQ(errors({"bench", "zzz"}),
            Lines{"command line: unknown command 'zzz'; use one of: step, ladder, kernels, save, load"});
}

TEST(FilesAfterOneFlag, AreNotTakenForAConfig) {
  const std::string mend =
      ": is data, not a YAML file of keys; to train on it, give --train_file once for each file, or "
      "a pattern in quotes";
  const Lines start = {"train", "--model_name_or_path", "model", "--output_dir", "out", "--train_file", "data.jsonl"};
  const auto with = [&](const Lines& more) {
    Lines args = start;
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  EXPECT_EQ(errors(with({"more.jsonl"})), Lines{"more.jsonl" + mend});
  EXPECT_EQ(errors(with({"records"})), Lines{"records" + mend});
  EXPECT_EQ(errors(with({"none.jsonl"})), Lines{"none.jsonl" + mend});
  EXPECT_EQ(errors(with({"run.yaml", "more.jsonl"})), Lines{"more.jsonl" + mend});
  EXPECT_EQ(errors({"preprocess", "data.jsonl", "--output", "x.jsonl"}), Lines{"data.jsonl" + mend});
}

TEST(NoCommand, PrintsHelpAndFails) {
  const TempFolder work;
  for (const Lines& args : {Lines{}, Lines{"bench"}}) {
    const Outcome outcome = run_mixtune(args, work.path());
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_NE(outcome.err.find(args.empty() ? "Usage: mixtune [" : "Usage: mixtune bench ["), std::string::npos)
        << outcome.err;
  }
}

}  // namespace
}  // namespace mixtune
