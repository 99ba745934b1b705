#include "job/rank_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mixtune {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// A watch with a timeout of 30 s over ranks that have all joined, and its clock.
class RankWatchTest : public testing::Test {
 protected:
  static constexpr int kSize = 3;

  RankWatchTest() {
    for (int rank = 0; rank < kSize; ++rank) EXPECT_TRUE(watch_.join(rank, now_));
  }

  void beat(int rank) { watch_.beat(rank, beats_[rank], now_); }
  void at(int rank, uint64_t collectives, bool inside, const char* activity) {
    beats_[rank] = {.step = 12,
                    .collectives = collectives,
                    .inside = inside,
                    .collective = inside ? activity : "",
                    .activity = activity};
  }
  // Lets time pass, in which all but `silent` send heartbeats.
  void pass(milliseconds time, int silent = -1) {
    for (milliseconds gone{0}; gone < time; gone += milliseconds(100)) {
      now_ += milliseconds(100);
      for (int rank = 0; rank < kSize; ++rank)
        if (rank != silent) beat(rank);
      watch_.check(now_);
    }
  }
  std::string message() const { return watch_.failure() ? watch_.failure()->message : "none"; }

  RankWatch::Time now_ = std::chrono::steady_clock::now();
  RankWatch watch_{kSize, milliseconds(30000), now_};
  Beat beats_[kSize];
};

TEST_F(RankWatchTest, HealthyRanksMayTakeTheirTime) {
  for (int rank = 0; rank < kSize; ++rank) at(rank, 4, false, "forward");
  pass(milliseconds(100000));
  EXPECT_EQ(message(), "none");
}

TEST_F(RankWatchTest, SilentRank) {
  at(2, 0, true, "tokens to experts");
  pass(milliseconds(200));
  pass(milliseconds(30000), 2);
  EXPECT_EQ(message(), "none");
  pass(milliseconds(200), 2);
  EXPECT_EQ(message(),
            "rank 2 has not answered for 30 s (stopped, or its machine is) at step 12, in 'tokens to experts'");
  EXPECT_EQ(watch_.failure()->rank, 2);
}

TEST_F(RankWatchTest, RankThatDoesNotCome) {
  at(0, 7, true, "tokens to experts");
  at(1, 7, true, "tokens to experts");
  at(2, 6, false, "forward");
  pass(milliseconds(30000));
  EXPECT_EQ(message(), "none");
  pass(milliseconds(300));
  EXPECT_EQ(message(), "rank 2 did not come to 'tokens to experts' of step 12 within 30 s: it is in 'forward'");
  EXPECT_EQ(watch_.failure()->rank, 2);
  EXPECT_EQ(watch_.failure()->exit_code, 1);
}

// A GPU's operation goes on when its call has returned, and the rank goes on with something else.
TEST_F(RankWatchTest, RanksThatWentOnWaitToo) {
  for (const int rank : {0, 1}) beats_[rank] = {12, 7, true, "tokens to experts", "backward"};
  beats_[2] = {12, 6, true, "row counts", "forward"};
  pass(milliseconds(30500));
  EXPECT_EQ(message(), "rank 2 did not come to 'tokens to experts' of step 12 within 30 s: it is in 'forward'");
}

TEST_F(RankWatchTest, TheOneThatAllWaitForIsNamed) {
  at(0, 9, true, "sum of gradients");
  at(1, 7, true, "tokens to experts");  // waits for 2 in a group without 0
  at(2, 6, false, "");
  pass(milliseconds(30500));
  EXPECT_EQ(message(), "rank 2 did not come to 'tokens to experts' of step 12 within 30 s");
}

TEST_F(RankWatchTest, StoppedRankIsNotSaidToBeInForward) {
  at(0, 7, true, "x");
  at(1, 7, true, "x");
  at(2, 6, false, "forward");
  pass(milliseconds(20000));
  pass(milliseconds(12000), 2);
  EXPECT_THAT(message(), HasSubstr("rank 2 has not answered for 10 s (stopped"));
}

TEST_F(RankWatchTest, ProgressInCollectivesIsNoWait) {
  for (uint64_t i = 0; i < 10; ++i) {
    at(0, 7 + i, true, "x");
    pass(milliseconds(10000));
  }
  EXPECT_EQ(message(), "none");
}

// It may take long: 0 and 1 have written their files, 2 still writes its own.
TEST_F(RankWatchTest, RankThatAdvancesIsNotMissing) {
  at(0, 7, true, "end of saving");
  at(1, 7, true, "end of saving");
  at(2, 6, false, "saving");
  for (int i = 0; i < 10; ++i) {
    ++beats_[2].advances;
    pass(milliseconds(20000));
    EXPECT_TRUE(watch_.waits_for_work(0, now_));
    EXPECT_FALSE(watch_.waits_for_work(2, now_));
  }
  EXPECT_EQ(message(), "none");
  pass(milliseconds(10500));
  EXPECT_EQ(message(),
            "rank 2 did not come to 'end of saving' of step 12, and has stood still for 30 s: it is in 'saving'");
  EXPECT_FALSE(watch_.waits_for_work(0, now_));
}

// A GPU's rank counts as inside the collective that it entered last, although that is long done.
TEST_F(RankWatchTest, RankOfAGpuThatAdvancesIsNotMissing) {
  for (const int rank : {0, 1}) beats_[rank] = {12, 7, true, "end of saving", "end of saving"};
  beats_[2] = {12, 6, true, "folder to save to", "saving"};
  for (int i = 0; i < 10; ++i) {
    ++beats_[2].advances;
    pass(milliseconds(20000));
  }
  EXPECT_EQ(message(), "none");
  pass(milliseconds(10500));
  EXPECT_THAT(message(), HasSubstr("rank 2 did not come to 'end of saving' of step 12"));
}

// A GPU's rank that goes on after an operation of its group waits for nobody, whoever is behind it.
TEST_F(RankWatchTest, RankThatAdvancesDoesNotWait) {
  beats_[0] = {12, 7, true, "sum of gradients", "saving"};
  at(1, 6, false, "saving");
  at(2, 6, false, "saving");
  for (int i = 0; i < 10; ++i) {
    ++beats_[0].advances;
    pass(milliseconds(20000));
  }
  EXPECT_EQ(message(), "none");
}

// Rank 1 waits for rank 0, which works for long and then goes on at once: rank 1's heartbeats come later.
TEST_F(RankWatchTest, RankThatWaitedForAnotherHasTimeToComeAfterIt) {
  at(0, 3, false, "backward");
  at(1, 4, true, "gradients of expert outputs");
  at(2, 5, true, "sum of gradients");
  for (int i = 0; i < 400; ++i) {
    ++beats_[0].advances;
    pass(milliseconds(100));
  }
  at(0, 5, true, "sum of gradients");
  pass(milliseconds(500), 1);
  EXPECT_EQ(message(), "none");
  EXPECT_TRUE(watch_.waits_for_work(2, now_));
  pass(milliseconds(29000));
  EXPECT_EQ(message(), "none");
  pass(milliseconds(1000));
  EXPECT_THAT(message(), HasSubstr("rank 1 did not come to 'sum of gradients'"));
}

// Others that advance do not excuse it.
TEST_F(RankWatchTest, TheOneThatStandsStillIsNamed) {
  at(0, 7, true, "end of saving");
  at(1, 7, false, "saving");
  at(2, 6, false, "saving");
  for (int i = 0; i < 4; ++i) {
    ++beats_[1].advances;
    pass(milliseconds(10000));
  }
  EXPECT_EQ(message(), "rank 2 did not come to 'end of saving' of step 12 within 30 s: it is in 'saving'");
}

TEST_F(RankWatchTest, RanksThatLeftAreNotWaitedFor) {
  at(0, 7, true, "x");
  at(1, 7, true, "x");
  watch_.leave(2);
  EXPECT_FALSE(watch_.all_left());
  pass(milliseconds(40000), 2);
  watch_.lose(2);
  EXPECT_EQ(message(), "none");
  watch_.leave(0);
  watch_.leave(1);
  EXPECT_TRUE(watch_.all_left());
}

TEST_F(RankWatchTest, LossIsABetterReasonThanWhatOthersReport) {
  at(2, 4, true, "x");
  pass(milliseconds(100));
  watch_.report({.rank = 0, .message = "connection\nreset", .exit_code = 1}, now_);
  watch_.check(now_);
  EXPECT_EQ(message(), "none");
  watch_.lose(2);
  EXPECT_EQ(message(), "rank 2 was lost (killed, or it crashed) at step 12, in 'x'");
}

TEST_F(RankWatchTest, FirstReportEndsTheJob) {
  watch_.report({.rank = 1, .message = "disk\nfull", .exit_code = 17}, now_);
  watch_.report({.rank = 0, .message = "another"}, now_);
  watch_.lose(1);  // the rank has said why
  pass(milliseconds(100));
  EXPECT_EQ(message(), "rank 1: disk\\x0afull");
  EXPECT_EQ(watch_.failure()->exit_code, 17);
  watch_.lose(2);
  EXPECT_EQ(watch_.failure()->rank, 1);
}

TEST_F(RankWatchTest, TimeInWhichTheWatchSleptDoesNotCount) {
  pass(milliseconds(1000));
  now_ += milliseconds(100000);
  watch_.check(now_);
  pass(milliseconds(1000));
  EXPECT_EQ(message(), "none");
}

TEST(RankWatch, AbsentRanks) {
  const auto now = std::chrono::steady_clock::now();
  RankWatch watch(4, milliseconds(300), now);
  EXPECT_EQ(watch.absent(), "ranks 0, 1, 2, 3 have not joined");
  for (const int rank : {0, 1, 3}) EXPECT_TRUE(watch.join(rank, now));
  EXPECT_FALSE(watch.join(3, now));
  EXPECT_EQ(watch.absent(), "rank 2 has not joined");
  watch.join(2, now);
  EXPECT_EQ(watch.absent(), "");
}

}  // namespace
}  // namespace mixtune
