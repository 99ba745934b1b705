#include "run/requests.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <initializer_list>

namespace mixtune {
namespace {

using std::chrono::seconds;

const Deadline::Clock::time_point kBegan = Deadline::Clock::from_time_t(1'000'000);

class DeadlineTest : public testing::Test {
 protected:
  DeadlineTest() { unsetenv("SLURM_JOB_END_TIME"); }
  ~DeadlineTest() override { unsetenv("SLURM_JOB_END_TIME"); }
};

TEST_F(DeadlineTest, WithoutALimitIsNeverNear) {
  EXPECT_FALSE(Deadline({}, kBegan, 10).is_near(kBegan + seconds(1'000'000'000)));
}

TEST_F(DeadlineTest, LeavesTimeForAStepAndASave) {
  Deadline deadline(100, kBegan, 20);
  deadline.took_step(4);
  deadline.took_step(2);
  EXPECT_FALSE(deadline.is_near(kBegan + seconds(63)));  // 1.5 * (4 + 20) = 36 before
  EXPECT_TRUE(deadline.is_near(kBegan + seconds(65)));
  deadline.took_save(8);  // in place of what was guessed
  deadline.took_save(6);
  EXPECT_FALSE(deadline.is_near(kBegan + seconds(81)));  // 1.5 * (4 + 8) = 18
  EXPECT_TRUE(deadline.is_near(kBegan + seconds(83)));
}

TEST_F(DeadlineTest, SlurmsEndCountsWhereItIsEarlier) {
  setenv("SLURM_JOB_END_TIME", "1000050", 1);
  EXPECT_TRUE(Deadline(100, kBegan, 0).is_near(kBegan + seconds(51)));
  EXPECT_FALSE(Deadline(100, kBegan, 0).is_near(kBegan + seconds(49)));
  EXPECT_TRUE(Deadline({}, kBegan, 0).is_near(kBegan + seconds(51)));
  setenv("SLURM_JOB_END_TIME", "1000500", 1);
  EXPECT_TRUE(Deadline(100, kBegan, 0).is_near(kBegan + seconds(101)));
  setenv("SLURM_JOB_END_TIME", "soon", 1);
  EXPECT_FALSE(Deadline({}, kBegan, 0).is_near(kBegan + seconds(1'000'000)));
}

void take(std::initializer_list<int> signals) {
  const StopSignals handled;
  for (const int signal : signals) raise(signal);
  std::_Exit(StopSignals::name() == "SIGTERM" ? 3 : StopSignals::name() == "SIGINT" ? 4 : 5);
}

TEST(StopSignalsDeathTest, OnlyASecondInterruptEndsTheProcess) {
  EXPECT_EXIT(take({}), testing::ExitedWithCode(5), "");
  EXPECT_EXIT(take({SIGTERM, SIGTERM, SIGUSR1, SIGTERM}), testing::ExitedWithCode(3), "");
  EXPECT_EXIT(take({SIGTERM, SIGINT}), testing::ExitedWithCode(3), "a second Ctrl-C ends at once");
  EXPECT_EXIT(take({SIGINT}), testing::ExitedWithCode(4), "a second Ctrl-C ends at once");
  EXPECT_EXIT(take({SIGINT, SIGTERM, SIGINT}), testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace mixtune
