// RankRuns: commands on several CPU ranks through the program itself.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/json_value.h"
#include "program.h"

namespace mixtune {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;

inline constexpr int kLauncher = -1;  // in place of a rank's number

inline int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

inline bool comes_true(const std::function<bool()>& condition) {
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

  std::vector<nlohmann::json> metrics(const std::string& out) const {
    std::vector<nlohmann::json> records;
    for (const std::string& line : lines_of(read(path(out + "/metrics.jsonl"))))
      records.push_back(nlohmann::json::parse(line));
    return records;
  }

  double last_evaluation(const std::string& out) const {
    double loss = 0;
    for (const auto& record : metrics(out))
      if (record.contains("eval_loss")) loss = record["eval_loss"];
    return loss;
  }

  // What `evaluate` says of a model, an argument and maybe flags.
  double loss_of(const Args& model) const {
    Args args = {"evaluate"};
    args.insert(args.end(), model.begin(), model.end());
    args.insert(args.end(), {"--file=data.jsonl", "--max_seq_length=64", "--json"});
    return nlohmann::json::parse(done(args).out).at("loss");
  }

  nlohmann::json config_of(const std::string& folder) const {
    return nlohmann::json::parse(read(path(folder + "/config.json")));
  }

  // Of a step, on all ranks, in 10^9.
  static double operations(const nlohmann::json& record) {
    const size_t ranks = record.contains("rank_tokens") ? record["rank_tokens"].size() : 1;
    return record["model_tflops"].get<double>() * record["milliseconds"].get<double>() * static_cast<double>(ranks);
  }

  void expect_same_metrics(const std::string& expected_out, const std::string& out) const {
    const auto expected = metrics(expected_out), records = metrics(out);
    ASSERT_EQ(records.size(), expected.size());
    for (size_t i = 0; i < records.size(); ++i) {
      if (expected[i].contains("model_tflops")) {
        const double wanted = operations(expected[i]);
        EXPECT_NEAR(operations(records[i]), wanted, 1e-12 * wanted) << "operations of " << out << ", record " << i;
      }
      for (const char* field : {"step", "loss", "lm_loss", "aux_loss", "grad_norm", "learning_rate", "tokens",
                                "target_tokens", "eval_loss", "eval_tokens"}) {
        ASSERT_EQ(records[i].contains(field), expected[i].contains(field)) << field;
        if (expected[i].contains(field)) {
          EXPECT_NEAR(records[i][field].get<double>(), expected[i][field].get<double>(), 1e-5)
              << field << " of " << out << ", record " << i;
        }
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
    return interrupted([&] { return run(args); }, [&] { return lines_of(read(path("out/metrics.jsonl"))).size() > 2; },
                       rank, signal);
  }
  Outcome interrupted(const std::function<Outcome()>& start, const std::function<bool()>& in_the_middle, int rank,
                      int signal) const {
    auto outcome = std::async(std::launch::async, start);
    EXPECT_TRUE(comes_true(in_the_middle));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // heartbeats tell where ranks are
    auto running = processes();
    EXPECT_TRUE(running.contains(rank));
    if (running.contains(rank)) kill(running.at(rank), signal);
    return outcome.get();
  }

  TempFolder work_;
};

inline void expect_one_error(const Outcome& outcome, const Args& parts) {
  EXPECT_EQ(count_of(outcome.err, "error"), 1) << outcome.err;
  const auto lines = lines_of(outcome.err);
  ASSERT_FALSE(lines.empty());
  EXPECT_TRUE(lines.back().starts_with("mixtune: error: ")) << outcome.err;
  for (const std::string& line : lines) EXPECT_TRUE(line.starts_with("mixtune: ")) << line;
  for (const std::string& part : parts) expect_part(lines.back(), part);
}

inline Args four_ranks(int steps) {
  return {"--nproc", "4", "--expert_model_parallel_size=2", "--per_device_train_batch_size=1",
          fmt::format("--max_steps={}", steps)};
}

// A port at which nobody listens now.
inline int free_port() {
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

// Starts two ranks as torchrun does; the second has further arguments, and a folder of its own. Prints their exit
// codes.
inline std::string launch_two(const Args& args, const std::string& more_of_rank_1,
                              const std::string& folder_of_rank_1 = ".", int timeout = 30) {
  const std::string command = fmt::format("\"$0\" {} --collective_timeout={}", fmt::join(args, " "), timeout);
  return fmt::format(
      "export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={0} OMP_NUM_THREADS=1\n"
      "export MIXTUNE_TOKEN=${{MIXTUNE_TOKEN-0123456789abcdef}}\n"
      "RANK=0 LOCAL_RANK=0 {1} > out.0 & rank_0=$!\n"
      "(cd {3} && RANK=1 LOCAL_RANK=1 {1} {2}) > out.1 & rank_1=$!\n"
      "wait $rank_0; echo $?; wait $rank_1; echo $?\n",
      free_port(), command, more_of_rank_1, folder_of_rank_1);
}

}  // namespace mixtune
