// A rank that is killed, stops, hangs or throws, wherever it is, ends the whole job in time, with one message that
// names it. No process is left behind.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/test_paths.h"
#include "job/supervisor.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

// MIXTUNE_TEST_DEVICE=cuda runs on two GPUs, whose ranks need longer to start.
bool on_gpus() {
  const char* device = std::getenv("MIXTUNE_TEST_DEVICE");
  return device != nullptr && std::string_view(device) == "cuda";
}

const int kRanks = on_gpus() ? 2 : 4, kVictim = kRanks / 2;
const std::chrono::milliseconds kTimeout = on_gpus() ? 6000ms : 1500ms;
const std::string kFaultyRank = program_path("faulty_rank");
constexpr auto kInTime = 12s;  // kTimeout and the grace, and room for a machine with other things to do

struct Fault {
  const char *kind, *place;
};

Outcome run(const Fault& fault, int victim) {
  return supervise({.command = {kFaultyRank, fault.kind, fault.place, std::to_string(victim)},
                    .ranks = kRanks,
                    .timeout = kTimeout,
                    .grace = 1500ms});
}

// The number of processes whose command line has both words.
int processes_with(const std::string& program, const std::string& place) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "cmdline", std::ios::binary);
    const std::string words{std::istreambuf_iterator<char>(file), {}};
    count += words.starts_with(program) && words.find(place) != words.npos;
  }
  return count;
}

class Faults : public testing::TestWithParam<Fault> {};

TEST_P(Faults, EndTheJobInTimeAndByName) {
  const auto start = Clock::now();
  const Outcome outcome = run(GetParam(), kVictim);
  EXPECT_LT(Clock::now() - start, kInTime);
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_NE(outcome.message.find(fmt::format("rank {}", kVictim)), outcome.message.npos) << outcome.message;
  const std::string kind = GetParam().kind, place = GetParam().place;
  const std::string expected = kind == "throw"  ? "thrown on purpose"
                               : kind == "kill" ? "was killed by signal 9"
                               : kind == "stop" ? "has not answered for"
                                                : "did not come to '";
  EXPECT_NE(outcome.message.find(expected), outcome.message.npos) << outcome.message;
  if (place != "loading") {
    EXPECT_NE(outcome.message.find("step 2"), outcome.message.npos) << outcome.message;
    EXPECT_NE(outcome.message.find(fmt::format("'{}'", place)), outcome.message.npos) << outcome.message;
  }
  EXPECT_EQ(processes_with(kFaultyRank, place), 0);
  fmt::print("{:>6} {:10} {:5.1f} s  {}\n", kind, place, std::chrono::duration<double>(Clock::now() - start).count(),
             outcome.message);
}

std::vector<Fault> all_faults() {
  std::vector<Fault> faults;
  for (const char* kind : {"throw", "kill", "stop", "hang"})
    for (const char* place : {"loading", "forward", "backward", "optimizer"}) faults.push_back({kind, place});
  return faults;
}

INSTANTIATE_TEST_SUITE_P(Everywhere, Faults, testing::ValuesIn(all_faults()),
                         [](const auto& of) { return fmt::format("{}_{}", of.param.kind, of.param.place); });

// The others wait for it in a collective for longer than the timeout, and than Gloo or a GPU would alone.
TEST(Faults, RankThatWorksIsWaitedFor) {
  const auto start = Clock::now();
  const Outcome outcome = run({"work", "backward"}, kVictim);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.message, "");
  EXPECT_GT(Clock::now() - start, kTimeout + 6s);
}

TEST(Faults, NoneIsNoFailure) {
  const Outcome outcome = run({"throw", "nowhere"}, kVictim);
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.message, "");
}

}  // namespace
}  // namespace mixtune
