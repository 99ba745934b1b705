// Ranks of a job: they start under a launcher, may not train where they differ, and end as a whole.
#include <cstdlib>

#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

TEST_F(RankRuns, ComeFromAnotherLauncher) {
  done(train("one", {"--max_steps=3", "--per_device_train_batch_size=2"}));
  const Outcome outcome = run_shell(
      launch_two(train("two", {"--max_steps=3", "--per_device_train_batch_size=1", "--expert_model_parallel_size=2"}),
                 ""),
      work_.path());
  EXPECT_EQ(outcome.out, "0\n0\n") << outcome.err;
  expect_same_metrics("one", "two");
  expect_same_weights(path("one/checkpoint-3"), path("two/checkpoint-3"));
  EXPECT_EQ(count_of(read(path("out.0")), "step 3/3  "), 2);  // and its evaluation
  EXPECT_EQ(read(path("out.1")), "");
  EXPECT_EQ(count_of(outcome.err, ": loaded "), 1) << outcome.err;
}

// Ranks of a launcher get one warning where they have no token, and one error where it is too short.
TEST_F(RankRuns, TokenOfALauncher) {
  const auto run = [&](const std::string& token) {
    return run_shell("export MIXTUNE_TOKEN=" + token + "\n" + launch_two(train("out" + token, {"--max_steps=1"}), ""),
                     work_.path());
  };
  const Outcome without = run("");
  EXPECT_EQ(without.out, "0\n0\n") << without.err;
  EXPECT_EQ(count_of(without.err, "mixtune: warning: MIXTUNE_TOKEN is not set: whoever reaches 127.0.0.1:"), 1)
      << without.err;
  const Outcome guessable = run("secret");
  EXPECT_EQ(guessable.out, "2\n2\n");
  EXPECT_EQ(count_of(guessable.err, "mixtune: error: MIXTUNE_TOKEN: has 6 characters: it could be guessed"), 2)
      << guessable.err;
}

TEST_F(RankRuns, OfDifferentConfigurationsDoNotTrain) {
  const Outcome outcome = run_shell(launch_two(train("out", {"--max_steps=3"}), "--seed=7"), work_.path());
  EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
  EXPECT_EQ(lines_of(outcome.err).size(), 1u) << outcome.err;
  expect_one_error(outcome, {"the setting seed of rank 1 is not that of rank 0"});
  expect_no_process_left();
  EXPECT_FALSE(fs::exists(path("out")));
}

// Two machines have files of the same names and sizes.
TEST_F(RankRuns, OfDifferentDataDoNotTrain) {
  fs::create_directory(path("other"));
  fs::create_directory_symlink(path("model"), path("other/model"));
  std::string text = read(path("data.jsonl"));
  text.replace(text.find("otter"), 5, "stoat");
  write(path("other/data.jsonl"), text);
  const Outcome outcome = run_shell(launch_two(train("out", {"--max_steps=3"}), "", "other"), work_.path());
  EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
  expect_one_error(outcome, {"the data of rank 1 is not that of rank 0"});
  expect_no_process_left();
  EXPECT_FALSE(fs::exists(path("out")));
}

// A file outside the model's folder is not read, not even to compare ranks.
TEST_F(RankRuns, OfAConfigJsonThatLeadsOutDoNotTrain) {
  fs::create_directory(path("other"));
  fs::copy(path("model"), path("other/model"));
  fs::create_symlink(path("data.jsonl"), path("other/data.jsonl"));
  fs::remove(path("other/model/config.json"));
  write(path("other/secret"), "secret");
  fs::create_symlink("../secret", path("other/model/config.json"));
  const Outcome outcome = run_shell(launch_two(train("out", {"--max_steps=3"}), "", "other"), work_.path());
  EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
  expect_one_error(outcome, {"model/config.json: is a link that leads out"});
  EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(RankRuns, OfOneGpuDoNotTrain) {
  const char* device = std::getenv("MIXTUNE_TEST_DEVICE");
  if (device == nullptr || std::string(device) != "cuda") GTEST_SKIP() << "skipped: no MIXTUNE_TEST_DEVICE=cuda";
  const Outcome outcome =
      run_shell("export CUDA_VISIBLE_DEVICES=0\n" + launch_two(train("out", {"--max_steps=3"}), ""), work_.path());
  EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
  expect_one_error(outcome, {"ranks 0 and 1 both compute on GPU "});
  expect_no_process_left();
  EXPECT_FALSE(fs::exists(path("out")));
}

// Each machine has a folder of that name. All else is shared, and rank 1 may write.
TEST_F(RankRuns, ThatDoNotShareTheirOutputDirDoNotTrain) {
  fs::create_directories(path("other/out"));
  fs::create_directory_symlink(path("model"), path("other/model"));
  fs::create_symlink(path("data.jsonl"), path("other/data.jsonl"));
  const Outcome outcome = run_shell(launch_two(train("out", {"--max_steps=3"}), "", "other", 12), work_.path());
  EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
  const std::string here = fs::canonical(work_.path()).string();
  expect_one_error(outcome, {"--output_dir: rank 1 does not see what rank 0 writes there: on ",
                             fmt::format("it is {}/other/out, for rank 0 on ", here),
                             fmt::format("it is {}/out; name a folder of a file system that all ranks share", here)});
  expect_no_process_left();
  EXPECT_EQ(outcome.err.find("step"), outcome.err.npos) << outcome.err;
  EXPECT_FALSE(fs::exists(path("out")));
  EXPECT_TRUE(fs::is_empty(path("other/out")));
}

const Args kEndless = {"--nproc=2", "--max_steps=1000000", "--per_device_train_batch_size=1"};

TEST_F(RankRuns, AreCalledMixtune) {
  auto outcome = std::async(std::launch::async, [&] { return run(train("out", kEndless)); });
  EXPECT_TRUE(comes_true([&] { return !lines_of(read(path("out/metrics.jsonl"))).empty(); }));
  const auto running = processes();
  EXPECT_EQ(running.size(), 3u);
  for (const auto& [rank, process] : running) {
    const fs::path folder = fs::path("/proc") / std::to_string(process);
    EXPECT_EQ(read(folder / "comm"), "mixtune\n") << rank;
    const std::string words = read(folder / "cmdline");
    EXPECT_EQ(words.substr(0, words.find('\0')), mixtune_program()) << rank;
  }
  if (running.contains(kLauncher)) kill(running.at(kLauncher), SIGTERM);
  EXPECT_NE(outcome.get().code, 0);
}

TEST_F(RankRuns, EndWhenOneIsKilled) {
  const Outcome outcome = interrupted(train("out", kEndless), 1, SIGKILL);
  EXPECT_GT(outcome.code, 0);
  expect_one_error(outcome, {"rank 1 was killed by signal 9 (Killed)", "at step "});
  expect_no_process_left();
}

TEST_F(RankRuns, EndWhenTheDiskIsFull) {
  const Args args =
      train("out", {"--nproc=2", "--expert_model_parallel_size=2", "--max_steps=2", "--per_device_train_batch_size=1"});
  const Outcome outcome = run_shell(fmt::format("ulimit -f 100; exec \"$0\" {}", fmt::join(args, " ")), work_.path());
  EXPECT_EQ(outcome.code, 1);
  expect_one_error(outcome, {"rank ", "step 2", "'saving'", "cannot be written"});
  expect_no_process_left();
  EXPECT_FALSE(fs::exists(path("out/latest")));
  EXPECT_FALSE(fs::exists(path("out/checkpoint-2")));
}

TEST_F(RankRuns, EndWhenTheirLauncherIsInterrupted) {
  const Outcome outcome = interrupted(train("out", kEndless), kLauncher, SIGINT);
  EXPECT_EQ(outcome.code, 16) << outcome.err;
  expect_part(outcome.err, "a second Ctrl-C ends them at once");
  expect_part(outcome.err, "stopped after step ");
  EXPECT_TRUE(read(path("out/latest")).starts_with("checkpoint-"));
  EXPECT_TRUE(processes().empty());
}

TEST_F(RankRuns, EndWhenTheirLauncherIsKilled) {
  EXPECT_EQ(interrupted(train("out", kEndless), kLauncher, SIGKILL).code, -1);
  expect_no_process_left();
}

}  // namespace
}  // namespace mixtune
