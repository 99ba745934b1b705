// `mixtune train` on several CPU ranks, through the program itself: the run is that of one process, it speaks once, and
// it ends as a whole.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "program.h"
#include "stored_weights.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Args = std::vector<std::string>;

constexpr int kLauncher = -1;  // in place of a rank's number

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), text.npos) << "no '" << part << "' in: " << text;
}

// One that nobody listens at now.
int free_port() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool found = bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                     getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(listener);
  if (!found) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

bool comes_true(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

// Each test has a folder with a small random model and data of different lengths.
class RankRuns : public testing::Test {
 protected:
  void SetUp() override {
    make_model(path("model"));
    std::string text;
    for (int i = 0; i < 24; ++i) {
      std::string answer = "an animal";
      for (int j = 0; j < i * 7 % 10; ++j) answer += fmt::format(" that swims {} miles", i + j);
      text += fmt::format("{{\"input\": \"Define: otter {}\", \"output\": \"{}\"}}\n", i, answer);
    }
    write(path("data.jsonl"), text);
  }

  fs::path path(const std::string& name) const { return work_.path() / name; }

  Outcome run(const Args& args) const { return run_mixtune(args, work_.path()); }

  Outcome done(const Args& args) const {
    Outcome outcome = run(args);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome;
  }

  static Args train(const std::string& out, Args more) {
    more.insert(more.begin(),
                {"train", "--model_name_or_path=model", "--train_file=data.jsonl", "--validation_file=data.jsonl",
                 "--output_dir=" + out, "--max_seq_length=64", "--learning_rate=1e-3"});
    if (on_gpus()) more.push_back("--device=cuda");
    return more;
  }

  std::vector<json> metrics(const std::string& out) const {
    std::vector<json> records;
    for (const std::string& line : lines_of(read(path(out + "/metrics.jsonl")))) records.push_back(json::parse(line));
    return records;
  }

  void expect_same_metrics(const std::string& expected_out, const std::string& out) const {
    const auto expected = metrics(expected_out), records = metrics(out);
    ASSERT_EQ(records.size(), expected.size());
    for (size_t i = 0; i < records.size(); ++i)
      for (const char* field : {"step", "loss", "lm_loss", "aux_loss", "grad_norm", "learning_rate", "tokens",
                                "target_tokens", "eval_loss", "eval_tokens"}) {
        ASSERT_EQ(records[i].contains(field), expected[i].contains(field)) << field;
        if (expected[i].contains(field)) {
          EXPECT_NEAR(records[i][field].get<double>(), expected[i][field].get<double>(), 1e-5)
              << field << " of " << out << ", record " << i;
        }
      }
  }

  // The processes of this test's runs, by their ranks.
  std::map<int, pid_t> processes() const {
    std::map<int, pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::error_code gone;  // or another user's
      if (fs::read_symlink(entry.path() / "exe", gone) != fs::canonical(mixtune_program()) ||
          fs::read_symlink(entry.path() / "cwd", gone) != fs::canonical(work_.path()))
        continue;
      const std::string environment = '\0' + read(entry.path() / "environ");
      const std::string name("\0RANK=", 6);
      const size_t at = environment.find(name);
      const int rank = at == environment.npos ? kLauncher : std::atoi(environment.c_str() + at + name.size());
      found[rank] = std::stoi(entry.path().filename());
    }
    return found;
  }

  void expect_no_process_left() const {
    EXPECT_TRUE(comes_true([&] { return processes().empty(); })) << fmt::format("{}", processes());
  }

  // Starts a run that goes on until `signal` comes to its process `rank`, in the middle of it.
  Outcome interrupted(const Args& args, int rank, int signal) const {
    auto outcome = std::async(std::launch::async, [&] { return run(args); });
    EXPECT_TRUE(comes_true([&] { return lines_of(read(path("out/metrics.jsonl"))).size() > 2; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // heartbeats tell where ranks are
    auto running = processes();
    EXPECT_TRUE(running.contains(rank));
    if (running.contains(rank)) kill(running.at(rank), signal);
    return outcome.get();
  }

  TempFolder work_;
};

void expect_one_error(const Outcome& outcome, const Args& parts) {
  EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
  const auto lines = lines_of(outcome.err);
  ASSERT_FALSE(lines.empty());
  EXPECT_TRUE(lines.back().starts_with("mixtune: error: ")) << outcome.err;
  for (const std::string& line : lines) EXPECT_TRUE(line.starts_with("mixtune: ")) << line;
  for (const std::string& part : parts) expect_part(lines.back(), part);
}

Args four_ranks(int steps) {
  return {"--nproc", "4", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1",
          fmt::format("--max_steps={}", steps)};
}

TEST_F(RankRuns, TrainAsOneProcessDoes) {
  done(train("one", {"--max_steps=4", "--per_device_train_batch_size=4"}));
  done(train("four", four_ranks(4)));
  done(train("two", {"--nproc=2", "--max_steps=4", "--zero_stage=0", "--per_device_train_batch_size=2"}));
  ASSERT_EQ(metrics("one").size(), 5u);
  EXPECT_LT(metrics("one")[3]["loss"], metrics("one")[0]["loss"]);
  for (const std::string out : {"four", "two"}) {
    expect_same_metrics("one", out);
    expect_same_weights(path("one/checkpoint-4"), path(out + "/checkpoint-4"));
    EXPECT_EQ(read(path(out + "/latest")), "checkpoint-4\n");
    EXPECT_EQ(read(path(out + "/checkpoint-4/config.json")), read(path("one/checkpoint-4/config.json")));
    EXPECT_EQ(read(path(out + "/checkpoint-4/tokenizer.model")), read(path("model/tokenizer.model")));
  }
}

TEST_F(RankRuns, GlobalBatchSizeCountsTheRowsOfAllRanks) {
  done(train("one", {"--max_steps=2", "--per_device_train_batch_size=2", "--global_batch_size=8"}));
  done(train("two", {"--nproc=2", "--max_steps=2", "--per_device_train_batch_size=1", "--global_batch_size=8"}));
  expect_same_metrics("one", "two");
}

TEST_F(RankRuns, AShardedCheckpointIsAModelLikeAnother) {
  done(train("out", four_ranks(2)));
  const fs::path folder = path("out/checkpoint-2");
  const std::string text = read(folder / "model.safetensors.index.json");
  const json index = json::parse(text);
  const auto weights = weights_in(folder);
  EXPECT_EQ(weights.size(), weights_in(path("model")).size());
  EXPECT_EQ(index["weight_map"].size(), weights.size());
  for (const auto& [name, stored] : weights) {
    EXPECT_EQ(index["weight_map"].value(name, ""), stored.file) << name;
    EXPECT_EQ(count_of(text, fmt::format("\"{}\"", name)), 1) << name;
  }

  expect_part(done({"inspect", "out"}).err, "checkpoint-2");
  const auto evaluated = json::parse(
      done({"evaluate", "out/checkpoint-2", "--file=data.jsonl", "--max_seq_length=64", "--packing", "--json"}).out);
  EXPECT_NEAR(evaluated["loss"].get<double>(), metrics("out").back()["eval_loss"].get<double>(), 1e-5);

  const auto from_there = [&](const std::string& out, Args more) {
    more.insert(more.begin(), {"train", "--model_name_or_path=out/checkpoint-2", "--train_file=data.jsonl",
                               "--output_dir=" + out, "--max_seq_length=64", "--max_steps=1"});
    done(more);
  };
  from_there("alone", {"--per_device_train_batch_size=2"});
  from_there("together", {"--nproc=2", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1"});
  expect_same_metrics("alone", "together");
}

TEST_F(RankRuns, SpeakOnce) {
  const Outcome alone = done(train("one", {"--max_steps=3"})), together = done(train("four", four_ranks(3)));
  for (const char* start : {"step 1/3  ", "step 2/3  ", "step 3/3  ", "evaluation: "})
    EXPECT_EQ(count_of(together.out, start), count_of(alone.out, start)) << together.out;
  EXPECT_EQ(lines_of(together.out).size(), lines_of(alone.out).size()) << together.out;
  for (const char* part : {": loaded ", "data.jsonl: 24 records", "parameters on", "router loss", ": saved "})
    EXPECT_EQ(count_of(together.err, part), count_of(alone.err, part)) << part << " in: " << together.err;
  EXPECT_EQ(count_of(together.err, ": loaded "), 1) << together.err;
  EXPECT_EQ(lines_of(together.err).size(), lines_of(alone.err).size() + 1) << together.err;  // the layout of the ranks
  expect_part(together.err, "zero_stage 1, global batch of 4 rows");
}

struct Mistake {
  std::string name;
  Args args, parts;
};

void PrintTo(const Mistake& mistake, std::ostream* out) {
  *out << mistake.name;
}

class RankMistakes : public RankRuns, public testing::WithParamInterface<Mistake> {};

TEST_P(RankMistakes, AreToldInOneLineBeforeAnythingStarts) {
  const Mistake& mistake = GetParam();
  const auto before = snapshot(work_.path());
  const Outcome outcome = run(train("out", mistake.args));
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(lines_of(outcome.err).size(), 1u) << outcome.err;
  expect_one_error(outcome, mistake.parts);
  EXPECT_TRUE(snapshot(work_.path()) == before);
}

const std::string kExperts = "--expert_model_parallel_size";

const std::vector<Mistake> kMistakes = {
    {"ExpertsOverRanks",
     {"--nproc=4", kExperts + "=3"},
     {kExperts, "3 does not divide 4 ranks: 4 / 3 = 1 remainder 1"}},
    {"RanksOverExperts", {"--nproc=4", kExperts + "=4"}, {kExperts, "4 does not divide 2 experts", "use 1 or 2"}},
    {"ExpertsOverNoRanks", {kExperts + "=2"}, {kExperts, "2 does not divide 1 rank", "use 1"}},
    {"ExpertsOverOneRank", {"--nproc=1", kExperts + "=2"}, {kExperts, "2 does not divide 1 rank", "use 1"}},
    {"GlobalBatch",
     {"--nproc=4", "--per_device_train_batch_size=3", "--global_batch_size=32"},
     {"--global_batch_size: 32 is no multiple of", "3 x 4 ranks = 12 rows", "24 or 36"}},
    {"NoRanks", {"--nproc=0"}, {"--nproc"}},
    {"NotANumberOfRanks", {"--nproc=many"}, {"--nproc", "many"}},
};

INSTANTIATE_TEST_SUITE_P(All, RankMistakes, testing::ValuesIn(kMistakes), [](const auto& of) { return of.param.name; });

// Two ranks as torchrun starts them; the second one with arguments of its own, in a folder of its own. Prints their
// exit codes.
std::string launch_two(const Args& args, const std::string& more_of_rank_1, const std::string& folder_of_rank_1 = ".",
                       int timeout = 30) {
  const std::string command = fmt::format("\"$0\" {} --collective_timeout={}", fmt::join(args, " "), timeout);
  return fmt::format(
      "export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={0} OMP_NUM_THREADS=1\n"
      "export MIXTUNE_TOKEN=${{MIXTUNE_TOKEN-0123456789abcdef}}\n"
      "RANK=0 LOCAL_RANK=0 {1} > out.0 & rank_0=$!\n"
      "(cd {3} && RANK=1 LOCAL_RANK=1 {1} {2}) > out.1 & rank_1=$!\n"
      "wait $rank_0; echo $?; wait $rank_1; echo $?\n",
      free_port(), command, more_of_rank_1, folder_of_rank_1);
}

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

// One warning where ranks of a launcher have no token; one error where it is too short to be one.
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

// Files of the same names and sizes, on two machines.
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

// What is no part of the model's folder is not read, be it to compare ranks.
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
      run_shell("export CUDA_VISIBLE_DEVICES=0\n" + launch_two(train("out", {"--max_steps=3"}), ""),
                work_.path());
  EXPECT_EQ(outcome.out, "2\n2\n") << outcome.err;
  expect_one_error(outcome, {"ranks 0 and 1 both compute on GPU "});
  expect_no_process_left();
  EXPECT_FALSE(fs::exists(path("out")));
}

// A folder of that name on each machine. All else is shared, and rank 1 may write.
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
  expect_one_error(outcome, {"rank ", "step 2", "'saving'", ".safetensors", "cannot be written"});
  expect_no_process_left();
  EXPECT_FALSE(fs::exists(path("out/latest")));
  EXPECT_FALSE(fs::exists(path("out/checkpoint-2")));
}

TEST_F(RankRuns, EndWhenTheirLauncherIsInterrupted) {
  const Outcome outcome = interrupted(train("out", kEndless), kLauncher, SIGINT);
  EXPECT_EQ(outcome.code, 130);
  expect_one_error(outcome, {"stopped by signal 2 (Interrupt)"});
  EXPECT_TRUE(processes().empty());
}

TEST_F(RankRuns, EndWhenTheirLauncherIsKilled) {
  EXPECT_EQ(interrupted(train("out", kEndless), kLauncher, SIGKILL).code, -1);
  expect_no_process_left();
}

}  // namespace
}  // namespace mixtune
