#include "job/coordinator.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <memory>
#include <stdexcept>

#include "base/error.h"
#include "job/coordinator_testing.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

TEST(Coordinator, ValuesReachAllRanks) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
  const std::string bytes("\0\xff\n", 3);
  a.client.set("key", bytes);
  EXPECT_EQ(b.client.get(0, "key"), bytes);
  b.client.set("key", "");  // its own one
  EXPECT_EQ(a.client.get(1, "key"), "");
  EXPECT_EQ(b.client.get(0, "key"), bytes);
  const std::string large(900 << 10, 'x');
  a.client.set("large", large);
  EXPECT_EQ(b.client.get(0, "large"), large);
  EXPECT_THROW(a.client.set("too large", std::string(2 << 20, 'x')), Error);
  EXPECT_EQ(a.client.get(1, "key"), "");
}

TEST(Coordinator, ValuesAreSetOnce) {
  Coordinator coordinator = make_coordinator(1);
  Rank a(coordinator.port(), 0, 1);
  a.client.set("key", "first");
  EXPECT_THAT(error_of([&] { a.client.set("key", "second"); }),
              HasSubstr("it does not take a value: rank 0 has set 'key' before"));
  EXPECT_EQ(a.client.get(0, "key"), "first");
  EXPECT_FALSE(coordinator.failure());
}

TEST(Coordinator, GetWaits) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
  auto value = std::async(std::launch::async, [&] { return b.client.get(0, "late"); });
  EXPECT_EQ(value.wait_for(milliseconds(100)), std::future_status::timeout);
  a.client.set("late", "now");
  EXPECT_EQ(value.get(), "now");
}

TEST(Coordinator, GetTimesOutAndSaysWhoIsMissing) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2, kShort);
  EXPECT_EQ(error_of([&] { a.client.get(1, "never"); }),
            "rank 1 has not set 'never' within 0.3 s; rank 1 has not joined");
  a.client.set("still", "there");
  EXPECT_EQ(a.client.get(0, "still"), "there");
}

TEST(Coordinator, EndsWhenAllHaveSaidGoodbye) {
  Coordinator coordinator = make_coordinator(2);
  auto end = std::async(std::launch::async, [&] { return coordinator.wait(); });
  {
    Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
    a.client.goodbye();
    EXPECT_EQ(end.wait_for(milliseconds(100)), std::future_status::timeout);
  }
  EXPECT_FALSE(end.get());
}

TEST(Coordinator, ReportedFailureReachesAll) {
  Coordinator coordinator = make_coordinator(3);
  Rank a(coordinator.port(), 0, 3), b(coordinator.port(), 1, 3), c(coordinator.port(), 2, 3);
  auto value = std::async(std::launch::async, [&] { return error_of([&] { c.client.get(0, "never"); }); });
  EXPECT_EQ(b.client.fail("the disk is full", 17).message, "rank 1: the disk is full");
  ASSERT_TRUE(coordinator.failure());
  EXPECT_EQ(coordinator.failure()->rank, 1);
  EXPECT_EQ(coordinator.failure()->exit_code, 17);
  EXPECT_EQ(a.message(), "rank 1: the disk is full");
  EXPECT_EQ(c.message(), "rank 1: the disk is full");
  EXPECT_EQ(value.get(), "rank 1: the disk is full");
  EXPECT_EQ(c.client.fail("me too", 1).message, "rank 1: the disk is full");
  EXPECT_EQ(coordinator.wait()->rank, 1);
}

TEST(Coordinator, TellsTheRanksBeforeItGoes) {
  auto coordinator = std::make_unique<Coordinator>(CoordinatorOptions{.host = kHost, .size = 2, .token = kToken});
  Rank a(coordinator->port(), 0, 2), b(coordinator->port(), 1, 2);
  a.client.fail("boom", 1);
  coordinator.reset();
  EXPECT_EQ(b.message(), "rank 0: boom");
}

TEST(Coordinator, LostRank) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2);
  try {
    Rank b(coordinator.port(), 1, 2);
    b.client.set_step(12);
    b.client.set_activity("forward");
    b.client.enter("tokens to experts");
    std::this_thread::sleep_for(kShort);
    throw std::runtime_error("out of here");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(a.message(), "rank 1 was lost (killed, or it crashed) at step 12, in 'tokens to experts'");
  EXPECT_TRUE(coordinator.failure()->connection_lost);
}

TEST(Coordinator, StoppedRank) {
  Coordinator coordinator = make_coordinator(2, kFewBeats);
  const Fd silent = join_by_hand(coordinator.port(), {.rank = 1, .size = 2, .purpose = Purpose::kHeartbeats});
  Rank a(coordinator.port(), 0, 2);
  EXPECT_EQ(a.message(), "rank 1 has not answered for 0.8 s (stopped, or its machine is)");
}

TEST(Coordinator, RankThatDoesNotCome) {
  Coordinator coordinator = make_coordinator(3, kFewBeats);
  Rank a(coordinator.port(), 0, 3), b(coordinator.port(), 1, 3), c(coordinator.port(), 2, 3);
  for (Rank* rank : {&a, &b, &c}) {
    rank->client.set_step(12);
    rank->client.set_activity("forward");
    rank->client.enter("first");
    rank->client.leave();
  }
  a.client.enter("tokens to experts");
  c.client.enter("tokens to experts");
  const std::string expected = "rank 1 did not come to 'tokens to experts' of step 12 within 0.8 s: it is in 'forward'";
  EXPECT_EQ(a.message(), expected);
  EXPECT_EQ(b.message(), expected);
}

TEST(Coordinator, NoCoordinator) {
  int port = 0;
  {
    const Fd listener = listen_at(kHost, 0);
    port = port_of(listener);
  }
  EXPECT_THAT(error_of([&] { Rank(port, 0, 2, kShort); }),
              HasSubstr("no coordinator at 127.0.0.1:" + std::to_string(port) + " within 0.3 s (Connection refused)"));
}

// The failure comes long before the timeout, which is minutes.
TEST(Coordinator, RanksThatDoNotMeetSayWhy) {
  int port = 0;
  {
    const Fd listener = listen_at(kHost, 0);
    port = port_of(listener);
  }
  testing::internal::CaptureStderr();
  auto early = std::async(std::launch::async, [&] {
    CoordinatorClient({.host = kHost, .port = port, .rank = 1, .size = 3, .patience = kShort, .on_failure = {}});
  });
  std::this_thread::sleep_for(2 * kShort);
  {
    const Coordinator coordinator({.host = kHost, .port = port, .size = 3, .patience = kShort});
    early.get();
    std::this_thread::sleep_for(2 * kShort);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            fmt::format("mixtune: warning: rank 1 has not reached rank 0 at {}:{} yet (Connection refused)\n"
                        "mixtune: warning: ranks 0, 2 have not joined yet, 0.3 s after the start\n",
                        kHost, port));
}

TEST(Coordinator, RanksMayComeBeforeIt) {
  int port = 0;
  {
    const Fd listener = listen_at(kHost, 0);
    port = port_of(listener);
  }
  auto early = std::async(std::launch::async, [&] { Rank(port, 0, 1).client.set("here", ""); });
  std::this_thread::sleep_for(milliseconds(100));
  Coordinator coordinator({.host = kHost, .port = port, .size = 1, .token = kToken});
  early.get();
  EXPECT_FALSE(coordinator.wait());
}

TEST(Coordinator, CoordinatorThatIsGone) {
  auto coordinator = std::make_unique<Coordinator>(CoordinatorOptions{.host = kHost, .size = 1, .token = kToken});
  Rank a(coordinator->port(), 0, 1);
  coordinator.reset();
  EXPECT_THAT(a.message(), HasSubstr("was lost: "));
  EXPECT_THROW(a.client.get(0, "key"), Error);
}

// Runs long past the timeout: a rank that advances is not missing, and the one that waits knows it.
TEST(Coordinator, RankThatAdvancesIsWaitedFor) {
  Coordinator coordinator = make_coordinator(2, kFewBeats);
  Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
  b.client.enter("end of saving");
  a.client.set_activity("saving");
  const auto end = steady_clock::now() + 3 * kFewBeats;
  bool waited = false;
  while (steady_clock::now() < end) {
    a.client.advance();
    std::this_thread::sleep_for(milliseconds(20));
    waited = waited || b.client.waits_for_work();
    EXPECT_FALSE(a.client.waits_for_work());
  }
  EXPECT_TRUE(waited);
  EXPECT_FALSE(coordinator.failure());
  EXPECT_EQ(b.message(), "rank 0 did not come to 'end of saving', and has stood still for 0.8 s: it is in 'saving'");
}

TEST(Coordinator, PortInUse) {
  Coordinator coordinator = make_coordinator(1);
  EXPECT_THROW(Coordinator({.host = kHost, .port = coordinator.port()}), UserError);
}

}  // namespace
}  // namespace mixtune
