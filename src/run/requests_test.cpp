#include "run/requests.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <thread>

#include "kernels/gemm/gemm.h"
#include "kernels/testing.h"

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

// The products of an LM head, whose kernels point the stack pointer into their scratch memory, while signals come all
// the time: nothing is written over. Without a stack for the handler that is so within a second.
TEST(StopSignals, MayComeInTheMiddleOfAProduct) {
  constexpr int64_t kTokens = 64, kVocabulary = 4096, kHidden = 16;
  TestCtx ctx;
  Buffer<float> x({kTokens, kHidden}), w({kVocabulary, kHidden}), y({kTokens, kVocabulary}), dx({kTokens, kHidden}),
      dw({kVocabulary, kHidden});
  for (int64_t i = 0; i < kTokens * kHidden; ++i) x[i] = static_cast<float>(i % 7);
  for (int64_t i = 0; i < kVocabulary * kHidden; ++i) w[i] = static_cast<float>(i % 5);
  const StopSignals handled;
  std::atomic<bool> ends = false;
  std::thread sender([&] {
    while (!ends) {
      kill(getpid(), SIGUSR1);
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    }
  });
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (std::chrono::steady_clock::now() < until) {
    gemm(ctx, {.a = x, .b = w, .c = y, .trans_b = true});
    gemm(ctx, {.a = y, .b = w, .c = dx});
    gemm(ctx, {.a = y, .b = x, .c = dw, .trans_a = true});
  }
  ends = true;
  sender.join();
  EXPECT_EQ(StopSignals::name(), "SIGUSR1");
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
