// The cache of tokenised data through the program: made once, shared by ranks and runs.
#include "rank_runs.h"

namespace mixtune {
namespace {

class DataCacheRuns : public RankRuns {
 protected:
  // The whole entries of `--data_cache=cache`, without locks and remembered hashes.
  std::vector<std::string> entries() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path("cache")))
      if (entry.is_directory()) found.push_back(entry.path().filename());
    return found;
  }
  static Args run_with(const std::string& out, Args more) {
    more.push_back("--max_steps=3");
    return train(out, std::move(more));
  }
};

// The validation file is the same data, so that there is one entry.
TEST_F(DataCacheRuns, RanksShareOneEntryAndLaterRunsTakeIt) {
  const Args two_ranks = {"--nproc", "2", "--per_device_train_batch_size=1"};
  const auto with = [&](const char* cache) {
    Args args = two_ranks;
    args.push_back(std::string("--data_cache=") + cache);
    return args;
  };
  const Outcome first = done(run_with("first", with("cache")));
  EXPECT_EQ(entries().size(), 1u);
  EXPECT_EQ(count_of(first.err, "24 records"), 2) << first.err;
  EXPECT_EQ(count_of(first.err, "from cache"), 1) << first.err;  // as the validation data
  const auto before = snapshot(path("cache"));
  const Outcome second = done(run_with("second", with("cache")));
  EXPECT_EQ(count_of(second.err, "24 records"), 2) << second.err;
  EXPECT_EQ(count_of(second.err, "data.jsonl: from cache, cache/" + entries()[0]), 2) << second.err;
  const auto after = snapshot(path("cache"));
  for (const auto& [name, content] : before)
    if (!name.ends_with(".lock")) {
      EXPECT_EQ(after.at(name), content) << name;
    }
  done(run_with("off", with("off")));
  expect_same_metrics("off", "first");
  expect_same_metrics("off", "second");
}

TEST_F(DataCacheRuns, WhatChangesTokensMakesAnotherEntry) {
  const auto run_again = [&](Args more) {
    more.push_back("--data_cache=cache");
    return done(run_with("out", std::move(more))).err;
  };
  run_again({});
  EXPECT_EQ(entries().size(), 1u);
  run_again({"--overwrite_output_dir", "--packing", "--seed=3"});
  EXPECT_EQ(entries().size(), 1u);
  run_again({"--overwrite_output_dir", "--train_on_prompt"});
  EXPECT_EQ(entries().size(), 2u);
  write(path("data.jsonl"), read(path("data.jsonl")) + "{\"input\": \"Define: eel\", \"output\": \"a fish\"}\n");
  const std::string said = run_again({"--overwrite_output_dir"});
  EXPECT_EQ(entries().size(), 3u);
  EXPECT_EQ(count_of(said, "25 records"), 2) << said;
}

TEST_F(DataCacheRuns, TwoRunsAtOnceAreBothRight) {
  const auto start = [&](const char* out) {
    return std::async(std::launch::async, [this, out] { return run(run_with(out, {"--data_cache=cache"})); });
  };
  auto a = start("a"), b = start("b");
  const Outcome of_a = a.get(), of_b = b.get();
  EXPECT_EQ(of_a.code, 0) << of_a.err;
  EXPECT_EQ(of_b.code, 0) << of_b.err;
  EXPECT_EQ(entries().size(), 1u);
  expect_same_metrics("a", "b");
}

TEST_F(DataCacheRuns, TrainsWithoutACacheWhereItCannotBeWritten) {
  write(path("file"), "");
  const Outcome outcome = done(run_with("out", {"--data_cache=file/cache"}));
  expect_part(outcome.err, "warning: tokenised data is not kept for later runs: file/cache: cannot be made");
  EXPECT_EQ(count_of(outcome.err, "24 records"), 2) << outcome.err;
}

TEST_F(DataCacheRuns, IndexedDataIsReadWhereItLies) {
  done({"preprocess", "--train_file=data.jsonl", "--tokenizer_name_or_path=model", "--max_seq_length=64",
        "--output=tokens", "--output_format=indexed"});
  Args args = run_with("indexed", {"--data_cache=cache"});
  for (std::string& arg : args)
    if (arg == "--train_file=data.jsonl") arg = "--train_file=tokens";
  const Outcome outcome = done(args);
  EXPECT_EQ(entries().size(), 1u) << outcome.err;  // of the validation data
  done(run_with("out", {"--data_cache=off"}));
  expect_same_metrics("out", "indexed");
}

}  // namespace
}  // namespace mixtune
