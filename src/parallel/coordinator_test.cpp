#include "parallel/coordinator.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <memory>
#include <stdexcept>

#include "base/error.h"
#include "parallel/coordinator_client.h"
#include "parallel/wire.h"

namespace mixtune {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

constexpr const char* kHost = "127.0.0.1";
constexpr milliseconds kShort{300};
constexpr milliseconds kFewBeats{800};  // in which ranks on a busy machine still get a heartbeat through
constexpr milliseconds kLong{10000};    // more than a test waits for what will come

Coordinator make_coordinator(int size, milliseconds timeout = kLong) {
  return Coordinator({.host = kHost, .size = size, .token = "secret", .timeout = timeout});
}

// A rank in a thread of this process, and what it is told of the job's end.
struct Rank {
  Rank(int port, int rank, int size, milliseconds timeout = kLong, const char* token = "secret")
      : client({.host = kHost,
                .port = port,
                .rank = rank,
                .size = size,
                .token = token,
                .timeout = timeout,
                .on_failure = [this](const Failure& failure) {
                  told.set_value(failure);
                }}) {}

  std::string message() {
    auto future = told.get_future();
    return future.wait_for(kLong) == std::future_status::ready ? future.get().message : "none";
  }

  std::promise<Failure> told;
  CoordinatorClient client;
};

template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(Coordinator, ValuesReachAllRanks) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
  const std::string bytes("\0\xff\n", 3);
  a.client.set("key", bytes);
  EXPECT_EQ(b.client.get("key"), bytes);
  b.client.set("key", "");
  EXPECT_EQ(a.client.get("key"), "");
  const std::string large(900 << 10, 'x');
  a.client.set("large", large);
  EXPECT_EQ(b.client.get("large"), large);
  EXPECT_THROW(a.client.set("too large", std::string(2 << 20, 'x')), Error);
  EXPECT_EQ(a.client.get("key"), "");
}

TEST(Coordinator, GetWaits) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
  auto value = std::async(std::launch::async, [&] { return b.client.get("late"); });
  EXPECT_EQ(value.wait_for(milliseconds(100)), std::future_status::timeout);
  a.client.set("late", "now");
  EXPECT_EQ(value.get(), "now");
}

TEST(Coordinator, GetTimesOutAndSaysWhoIsMissing) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2, kShort);
  EXPECT_EQ(error_of([&] { a.client.get("never"); }), "no rank has set 'never' within 0.3 s; rank 1 has not joined");
  a.client.set("still", "there");
  EXPECT_EQ(a.client.get("still"), "there");
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
  auto value = std::async(std::launch::async, [&] { return error_of([&] { c.client.get("never"); }); });
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
  auto coordinator = std::make_unique<Coordinator>(CoordinatorOptions{.host = kHost, .size = 2, .token = "secret"});
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
  const auto deadline = steady_clock::now() + kLong;
  const Fd silent = connect_to(kHost, coordinator.port(), deadline);
  FrameWriter hello(FrameKind::kHello);
  hello.text(kWireMagic).text("secret").number(1).number(2).number(static_cast<int64_t>(Purpose::kHeartbeats));
  send_frame(silent, hello.frame(), deadline);
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

// Long before the timeout, which is minutes.
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
    Coordinator coordinator({.host = kHost, .port = port, .size = 3, .patience = kShort});
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
  Coordinator coordinator({.host = kHost, .port = port, .size = 1, .token = "secret"});
  early.get();
  EXPECT_FALSE(coordinator.wait());
}

TEST(Coordinator, CoordinatorThatIsGone) {
  auto coordinator = std::make_unique<Coordinator>(CoordinatorOptions{.host = kHost, .size = 1, .token = "secret"});
  Rank a(coordinator->port(), 0, 1);
  coordinator.reset();
  EXPECT_THAT(a.message(), HasSubstr("was lost: "));
  EXPECT_THROW(a.client.get("key"), Error);
}

TEST(Coordinator, OtherJobsAreRefused) {
  Coordinator coordinator = make_coordinator(2);
  const auto refused = [&](int rank, int size, const char* token) {
    return error_of([&] { Rank(coordinator.port(), rank, size, kLong, token); });
  };
  EXPECT_THAT(refused(0, 2, "guess"), HasSubstr("it coordinates another job"));
  EXPECT_THAT(refused(0, 3, "secret"), HasSubstr("its job has 2 ranks"));
  EXPECT_THAT(refused(2, 2, "secret"), HasSubstr("its job has 2 ranks"));
  Rank a(coordinator.port(), 0, 2);
  EXPECT_THAT(refused(0, 2, "secret"), HasSubstr("this rank has joined before"));
  EXPECT_FALSE(coordinator.failure());
}

TEST(Coordinator, StrangersAreClosedAndIgnored) {
  Coordinator coordinator = make_coordinator(1);
  Rank a(coordinator.port(), 0, 1);
  const auto deadline = steady_clock::now() + kLong;
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"),
        std::string("\xff\xff\xff\xff"
                    "boo"),
        std::string(8, '\0'), FrameWriter(FrameKind::kHello).text("wrong magic").frame(),
        FrameWriter(FrameKind::kGoodbye).frame(), FrameWriter(FrameKind::kHello).text(std::string(1000, 'x')).frame(),
        std::string("\1\0\0\0\1", 5)}) {
    const Fd stranger = connect_to(kHost, coordinator.port(), deadline);
    send_frame(stranger, garbage, deadline);
    EXPECT_THROW(receive_frame(stranger, deadline), Error);
    EXPECT_LT(steady_clock::now(), deadline);
  }
  a.client.set("still", "there");
  EXPECT_EQ(a.client.get("still"), "there");
  EXPECT_FALSE(coordinator.failure());
}

TEST(Coordinator, ManyStrangersAreNotKept) {
  Coordinator coordinator = make_coordinator(1);
  const auto deadline = steady_clock::now() + kLong;
  std::vector<Fd> strangers;
  for (int i = 0; i < 66; ++i) strangers.push_back(connect_to(kHost, coordinator.port(), deadline));
  const Fd one_more = connect_to(kHost, coordinator.port(), deadline);
  EXPECT_THROW(receive_frame(one_more, deadline), Error);
  strangers.clear();
  Rank a(coordinator.port(), 0, 1);
}

TEST(Coordinator, PortInUse) {
  Coordinator coordinator = make_coordinator(1);
  EXPECT_THROW(Coordinator({.host = kHost, .port = coordinator.port()}), UserError);
}

TEST(Coordinator, ListensAtAllAddresses) {
  Coordinator coordinator({.size = 1, .token = "secret"});
  Rank a(coordinator.port(), 0, 1);
  a.client.set("key", "value");
  EXPECT_EQ(a.client.get("key"), "value");
}

}  // namespace
}  // namespace mixtune
