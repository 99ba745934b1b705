#include "job/supervisor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/temp_folder.h"
#include "job/coordinator_client.h"
#include "job/launch.h"

namespace mixtune {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Runs shell scripts as ranks. They leave their process ids in a folder, since none of them may outlive a test.
class SupervisorTest : public testing::Test {
 protected:
  SupervisorOptions options(const std::string& script, int ranks) const {
    return {.command = {"/bin/sh", "-c", "echo $$ > " + folder_ + "/$RANK; " + script},
            .ranks = ranks,
            .grace = milliseconds(300)};
  }
  Outcome run(const std::string& script, int ranks = 3) const {
    const Outcome outcome = supervise(options(script, ranks));
    for (int rank = 0; rank < ranks; ++rank) EXPECT_TRUE(is_gone(pid_of(rank))) << rank;
    return outcome;
  }
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  // Waits for the rank's file.
  pid_t pid_of(int rank) const {
    const auto deadline = steady_clock::now() + milliseconds(5000);
    for (pid_t pid = 0; steady_clock::now() < deadline; std::this_thread::sleep_for(milliseconds(5))) {
      std::ifstream file(folder_ + "/" + std::to_string(rank));
      if (file >> pid) return pid;
    }
    ADD_FAILURE() << "rank " << rank << " did not start";
    return 1;
  }
  static bool is_gone(pid_t pid) { return kill(pid, 0) != 0 && errno == ESRCH; }
  // Whether a process that others reap is gone, or dead, soon.
  static bool goes(pid_t pid) {
    const auto deadline = steady_clock::now() + milliseconds(5000);
    for (; steady_clock::now() < deadline; std::this_thread::sleep_for(milliseconds(5))) {
      std::ifstream status("/proc/" + std::to_string(pid) + "/stat");
      std::string id, name, state;
      if (!(status >> id >> name >> state) || state == "Z" || state == "X") return true;
    }
    return false;
  }

  const TempFolder temporary_;
  const std::string folder_ = temporary_.path();
};

TEST_F(SupervisorTest, AllEndWell) {
  const Outcome outcome = run("exit 0");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.message, "");
}

TEST_F(SupervisorTest, RanksHaveTorchrunsEnvironment) {
  const Outcome outcome =
      run("test $RANK = $LOCAL_RANK && test $WORLD_SIZE = 2 && test $MASTER_ADDR = 127.0.0.1 && "
          "test $MASTER_PORT -gt 0 && test $MIXTUNE_SUPERVISED = 1 && test -n \"$MIXTUNE_TOKEN\" && "
          "test $OMP_NUM_THREADS -gt 0 && test -n \"$PATH\" && ! read line",
          2);
  EXPECT_EQ(outcome.message, "");
}

// Rank 0 alone, in the process group of its supervisor, and it ends with the others all the same.
TEST_F(SupervisorTest, FirstRankMayRead) {
  const int input = dup(STDIN_FILENO);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "a line\n", 7), 7);
  dup2(ends[0], STDIN_FILENO);
  SupervisorOptions reading =
      options("if test $RANK = 0; then read line && test \"$line\" = 'a line' && cut -d' ' -f5 /proc/$$/stat > " +
                  file("group") + "; else ! read line; fi",
              2);
  reading.first_reads = true;
  EXPECT_EQ(supervise(reading).message, "");
  pid_t group = 0;
  std::ifstream(file("group")) >> group;
  EXPECT_EQ(group, getpgrp());
  SupervisorOptions failing = options("test $RANK = 1 && exit 3; exec sleep 30", 2);
  failing.first_reads = true;
  const auto start = steady_clock::now();
  EXPECT_EQ(supervise(failing).exit_code, 3);
  EXPECT_TRUE(is_gone(pid_of(0)));
  EXPECT_LT(steady_clock::now() - start, milliseconds(5000));
  dup2(input, STDIN_FILENO);
  for (const int fd : {input, ends[0], ends[1]}) close(fd);
}

TEST_F(SupervisorTest, RankThatFailsEndsAll) {
  const auto start = steady_clock::now();
  const Outcome outcome = run("test $RANK = 1 && exit 3; sleep 30");
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(outcome.message, "rank 1 ended with exit code 3 before it joined");
  EXPECT_LT(steady_clock::now() - start, milliseconds(5000));
}

TEST_F(SupervisorTest, RankThatIsKilledEndsAll) {
  const Outcome outcome = run("test $RANK = 2 && kill -9 $$; sleep 30");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(outcome.message, "rank 2 was killed by signal 9 (Killed) before it joined");
}

TEST_F(SupervisorTest, StoppedAndStubbornRanksEndToo) {
  const Outcome outcome =
      run("test $RANK = 0 && kill -STOP $$; test $RANK = 1 && sleep 0.1 && exit 4; trap '' TERM; sleep 30; sleep 30");
  EXPECT_EQ(outcome.exit_code, 4);
}

TEST_F(SupervisorTest, CommandThatIsNotThere) {
  EXPECT_EQ(supervise({.command = {"/no/such/program"}, .ranks = 2}).exit_code, 127);
}

TEST_F(SupervisorTest, ProcessesOfARankGoWithIt) {
  run("sleep 30 & echo $! > " + file("9") + "; test $RANK = 0 && exit 1; wait", 1);
  EXPECT_TRUE(goes(pid_of(9)));
}

// A supervisor in a process of its own, so that it can be sent signals. Its last message is in the file "message".
class SupervisorProcessTest : public SupervisorTest {
 protected:
  void start(
      const std::string& script, const std::function<void()>& before = [] {}) {
    supervisor_ = fork();
    if (supervisor_ != 0) return;
    before();
    const Outcome outcome = supervise(options(script, 2));
    std::ofstream(file("message")) << outcome.message;
    _exit(outcome.exit_code);
  }
  void wait_for_file(const std::string& name) const {
    const auto deadline = steady_clock::now() + milliseconds(5000);
    while (!std::filesystem::exists(file(name)) && steady_clock::now() < deadline)
      std::this_thread::sleep_for(milliseconds(5));
  }
  int wait() const {
    int status = 0;
    waitpid(supervisor_, &status, 0);
    return status;
  }
  std::string message() const {
    std::ifstream in(file("message"));
    return {std::istreambuf_iterator<char>(in), {}};
  }

  pid_t supervisor_ = -1;
};

TEST_F(SupervisorProcessTest, SignalIsPassedOnAndRanksMaySave) {
  start("trap 'sleep 0.$((1 + 6 * RANK)); touch " + file("saved") + "$RANK; exit 16' TERM; touch " + file("ready") +
        "$RANK; while :; do sleep 0.02; done");
  wait_for_file("ready0");
  wait_for_file("ready1");
  kill(supervisor_, SIGINT);
  EXPECT_EQ(WEXITSTATUS(wait()), 16);
  EXPECT_EQ(message(), "stopped by signal 2 (Interrupt)");
  for (const char* name : {"saved0", "saved1"}) EXPECT_TRUE(std::filesystem::exists(file(name)));
}

TEST_F(SupervisorProcessTest, SignalEndsRanksThatDoNotCatchIt) {
  start("exec sleep 30");
  for (const int rank : {0, 1}) pid_of(rank);
  kill(supervisor_, SIGTERM);
  EXPECT_EQ(WEXITSTATUS(wait()), 128 + SIGTERM);
  EXPECT_EQ(message(), "stopped by signal 15 (Terminated)");
  for (const int rank : {0, 1}) EXPECT_TRUE(is_gone(pid_of(rank)));
}

// CUDA's driver starts such threads once GPUs were counted: any signal may reach them.
TEST_F(SupervisorProcessTest, ThreadsThatWereThereBeforeDoNotTakeItsSignals) {
  start("exec sleep 30", [] { std::thread([] { std::this_thread::sleep_for(std::chrono::seconds(60)); }).detach(); });
  for (const int rank : {0, 1}) pid_of(rank);
  kill(supervisor_, SIGINT);
  EXPECT_EQ(WEXITSTATUS(wait()), 128 + SIGINT);
  EXPECT_EQ(message(), "stopped by signal 2 (Interrupt)");
}

TEST_F(SupervisorProcessTest, SecondSignalKills) {
  start("trap 'touch " + file("caught") + "$RANK' TERM; touch " + file("ready") +
        "$RANK; while :; do sleep 0.02; done");
  for (const char* name : {"ready0", "ready1"}) wait_for_file(name);
  kill(supervisor_, SIGINT);
  for (const char* name : {"caught0", "caught1"}) wait_for_file(name);
  kill(supervisor_, SIGINT);
  EXPECT_EQ(WEXITSTATUS(wait()), 128 + SIGINT);
  for (const int rank : {0, 1}) EXPECT_TRUE(is_gone(pid_of(rank)));
}

TEST_F(SupervisorProcessTest, OnlyAnInterruptIsMoreThanTheFirstSignal) {
  start("trap 'touch " + file("caught") + "$RANK; sleep 0.5; exit 16' TERM; touch " + file("ready") +
        "$RANK; while :; do sleep 0.02; done");
  for (const char* name : {"ready0", "ready1"}) wait_for_file(name);
  kill(supervisor_, SIGUSR1);
  for (const char* name : {"caught0", "caught1"}) wait_for_file(name);
  kill(supervisor_, SIGTERM);
  kill(supervisor_, SIGUSR1);
  EXPECT_EQ(WEXITSTATUS(wait()), 16);
}

TEST_F(SupervisorProcessTest, RanksDieWithASupervisorThatIsKilled) {
  start("exec sleep 30");
  const pid_t ranks[] = {pid_of(0), pid_of(1)};
  kill(supervisor_, SIGKILL);
  EXPECT_EQ(WTERMSIG(wait()), SIGKILL);
  for (const pid_t pid : ranks) EXPECT_TRUE(goes(pid));
}

// Ranks that join run this program again, with the one test at the end of this file, which does what kRole says.
constexpr const char* kRole = "MIXTUNE_TEST_ROLE";

Outcome run_ranks(const std::string& role, milliseconds timeout = milliseconds(10000)) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  return supervise({.command = {"env", std::string(kRole) + "=" + role, program, "--gtest_brief=1",
                                "--gtest_filter=SupervisedRank.*"},
                    .ranks = 3,
                    .timeout = timeout,
                    .grace = milliseconds(300)});
}

TEST(Supervisor, RanksThatFinish) {
  const Outcome outcome = run_ranks("finishes");
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.message, "");
}

TEST(Supervisor, RankThatReports) {
  const Outcome outcome = run_ranks("reports");
  EXPECT_EQ(outcome.exit_code, 17);
  EXPECT_TRUE(outcome.message.starts_with("rank 1") && outcome.message.ends_with(": the disk is full"))
      << outcome.message;
}

TEST(Supervisor, RankThatIsKilled) {
  const Outcome outcome = run_ranks("is killed");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(outcome.message, "rank 1 was killed by signal 9 (Killed) at step 12, in 'forward'");
}

TEST(Supervisor, RankThatIsStopped) {
  const Outcome outcome = run_ranks("is stopped", milliseconds(800));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.message, testing::StartsWith("rank 1 "));
}

TEST(Supervisor, RankThatEndsEarly) {
  const Outcome outcome = run_ranks("ends early");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(outcome.message, "rank 1 ended before the job was done at step 12, in 'forward'");
}

// Without a role, as among all tests, it has nothing to do.
TEST(SupervisedRank, DoesItsPart) {
  if (getenv(kRole) == nullptr) return;
  const std::string role = getenv(kRole);
  const auto launch = start_from([](const char* name) { return getenv(name); }).rank;
  ASSERT_TRUE(launch && launch->supervised);
  CoordinatorClient client({.host = launch->host,
                            .port = launch->port,
                            .rank = launch->rank,
                            .size = launch->size,
                            .token = getenv("MIXTUNE_TOKEN"),
                            .on_failure = [](const Failure& failure) {
                              _exit(failure.exit_code);
                            }});
  client.set("joined" + std::to_string(launch->rank), "");
  for (int rank = 0; rank < launch->size; ++rank) client.get(rank, "joined" + std::to_string(rank));
  if (role == "finishes") return;
  client.set_step(12);
  client.set_activity("forward");
  if (launch->rank != 1) client.enter("sum of gradients");
  std::this_thread::sleep_for(milliseconds(launch->rank == 1 ? 300 : 30000));
  if (role == "is killed") raise(SIGKILL);
  if (role == "is stopped") raise(SIGSTOP);
  if (role == "reports") _exit(client.fail("the disk is full", 17).exit_code);
  _exit(0);
}

}  // namespace
}  // namespace mixtune
