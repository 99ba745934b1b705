// Runs that are told to stop, or to save: they do so after a step, and go on later as if nothing had been.
#include <csignal>
#include <future>

#include "rank_runs.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

class Stop : public RankRuns {
 protected:
  static Args steps(const std::string& out, int count, const Args& more = {}) {
    Args args = {fmt::format("--max_steps={}", count), "--save_steps=0", "--per_device_train_batch_size=1",
                 "--validation_split_percentage=0"};
    args.insert(args.end(), more.begin(), more.end());
    args.insert(args.begin(), {"train", "--model_name_or_path=model", "--train_file=data.jsonl", "--output_dir=" + out,
                               "--max_seq_length=64"});
    return args;
  }
  static Args endless(const Args& more = {}) { return steps("out", 1'000'000, more); }

  // Starts a run, and calls `then` with its processes once it has made ten steps.
  Outcome while_running(const Args& args, const std::function<void(const std::map<int, pid_t>&)>& then) const {
    auto outcome = std::async(std::launch::async, [&] { return run(args); });
    EXPECT_TRUE(comes_true([&] { return lines_of(read(path("out/metrics.jsonl"))).size() >= 10; }));
    then(processes());
    return outcome.get();
  }

  void expect_stopped(const Outcome& outcome, const std::string& why) const {
    EXPECT_EQ(outcome.code, 16) << outcome.err;
    const int64_t last = metrics("out").back()["step"];
    expect_part(outcome.err, fmt::format("stopped after step {} by {}", last, why));
    EXPECT_EQ(read(path("out/latest")), fmt::format("checkpoint-{}\n", last));
    EXPECT_EQ(count_of(outcome.err, "error"), 0) << outcome.err;
    expect_no_process_left();
  }
};

TEST_F(Stop, SignalsEndTheStepAndSave) {
  for (const auto& [signal, name] :
       {std::pair(SIGTERM, "SIGTERM"), std::pair(SIGUSR1, "SIGUSR1"), std::pair(SIGINT, "SIGINT")}) {
    fs::remove_all(path("out"));
    const Outcome outcome = while_running(
        endless(), [&, signal = signal](const std::map<int, pid_t>& running) { kill(running.at(kLauncher), signal); });
    expect_stopped(outcome, name);
    EXPECT_EQ(count_of(outcome.err, "a second Ctrl-C ends at once"), signal == SIGINT) << outcome.err;
  }
}

TEST_F(Stop, TheRunGoesOnToTheSameBits) {
  done(steps("whole", 400));
  const Outcome stopped = while_running(
      steps("out", 400), [](const std::map<int, pid_t>& running) { kill(running.at(kLauncher), SIGTERM); });
  expect_stopped(stopped, "SIGTERM");
  done(steps("out", 400, {"--resume_from_checkpoint=auto"}));
  const auto whole = metrics("whole"), out = metrics("out");
  ASSERT_EQ(out.size(), whole.size());
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(out[i]["loss"], whole[i]["loss"]) << i;
  const auto expected = weights_in(path("whole/checkpoint-400")), weights = weights_in(path("out/checkpoint-400"));
  for (const auto& [name, stored] : expected) EXPECT_EQ(weights.at(name).values, stored.values) << name;
}

TEST_F(Stop, ManyMoreSignalsBreakNothing) {
  expect_stopped(while_running(endless(),
                               [](const std::map<int, pid_t>& running) {
                                 for (int i = 0; i < 20; ++i) kill(running.at(kLauncher), SIGTERM);
                               }),
                 "SIGTERM");
}

TEST_F(Stop, RanksAgreeOnTheStep) {
  if (on_gpus() && promised_gpus() < 2) GTEST_SKIP() << "skipped: one GPU";
  const Args two = {"--nproc=2", "--expert_model_parallel_size=2"};
  expect_stopped(
      while_running(endless(two), [](const std::map<int, pid_t>& running) { kill(running.at(kLauncher), SIGTERM); }),
      "SIGTERM");
  fs::remove_all(path("out"));
  const Outcome outcome = while_running(endless(two), [](const std::map<int, pid_t>& running) {
    kill(running.at(1), SIGUSR1);  // one rank's alone
  });
  expect_stopped(outcome, "a signal to another rank");
}

TEST_F(Stop, InTimeBeforeTheLimit) {
  const Outcome outcome = run(endless({"--time_limit=3s"}));
  expect_stopped(outcome, "the end of its time");
  EXPECT_LT(outcome.seconds, 30);
}

TEST_F(Stop, AFileAsksForACheckpoint) {
  const Outcome outcome = while_running(endless(), [&](const std::map<int, pid_t>& running) {
    write(path("out/SAVE"), "");
    EXPECT_TRUE(comes_true([&] { return fs::exists(path("out/latest")) && !fs::exists(path("out/SAVE")); }));
    const size_t records = lines_of(read(path("out/metrics.jsonl"))).size();
    EXPECT_TRUE(comes_true([&] { return lines_of(read(path("out/metrics.jsonl"))).size() > records; })) << "goes on";
    kill(running.at(kLauncher), SIGTERM);
  });
  expect_stopped(outcome, "SIGTERM");
  int checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(path("out")))
    checkpoints += entry.path().filename().string().starts_with("checkpoint-");
  EXPECT_EQ(checkpoints, 2);
}

TEST_F(Stop, SavesEverySoManyMinutes) {
  const Outcome outcome = while_running(
      endless({"--save_every_minutes=0.002", "--save_total_limit=2"}), [&](const std::map<int, pid_t>& running) {
        std::string first;
        EXPECT_TRUE(comes_true([&] { return fs::exists(path("out/latest")); }));
        if (fs::exists(path("out/latest"))) first = read(path("out/latest"));
        EXPECT_TRUE(comes_true([&] { return read(path("out/latest")) != first; })) << "and again";
        kill(running.at(kLauncher), SIGTERM);
      });
  expect_stopped(outcome, "SIGTERM");
}

TEST_F(Stop, ALimitThatIsNoTimeIsRefused) {
  const Outcome outcome = run(endless({"--time_limit=90"}));
  EXPECT_EQ(outcome.code, 2);
  expect_one_error(outcome, {"--time_limit: '90' is not a time", "2:30:00"});
}

}  // namespace
}  // namespace mixtune
