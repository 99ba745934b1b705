// Strangers: connections to the coordinator's port that are no rank of its job. They learn nothing, change nothing, and
// keep no rank out.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <thread>
#include <vector>

#include "job/coordinator_testing.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

Handshake rank_1(Purpose purpose = Purpose::kValues) {
  return {.rank = 1, .size = 2, .purpose = purpose};
}

// Whether the other side closes, after at most one answer.
bool is_closed(const Fd& socket) {
  try {
    receive_frame(socket, soon());
    receive_frame(socket, soon());
  } catch (const Error&) {
    return true;
  }
  return false;
}

TEST(Strangers, CannotJoinWithoutTheToken) {
  Coordinator coordinator = make_coordinator(2);
  testing::internal::CaptureStderr();
  for (const Purpose purpose : {Purpose::kValues, Purpose::kHeartbeats}) {
    Handshake claim = rank_1(purpose);
    const Fd stranger = say_hello(coordinator.port(), claim);
    EXPECT_EQ(give_proof(stranger, make_proof("not the token of the tests", Prover::kRank, claim)),
              FrameKind::kRefused);
    EXPECT_TRUE(is_closed(stranger));
  }
  EXPECT_FALSE(coordinator.joined(1));
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "mixtune: warning: rank 1 of 2, from 127.0.0.1, was refused: this is another job, or its MIXTUNE_TOKEN is "
            "another; others like it are not told of\n");
}

// A proof seen on one connection is worth nothing in another, and nobody gets the coordinator to make one.
TEST(Strangers, ProofsCannotBeUsedAgain) {
  Coordinator coordinator = make_coordinator(2);
  Handshake seen = rank_1();
  const Fd rank = say_hello(coordinator.port(), seen);
  const std::string proof = make_proof(kToken, Prover::kRank, seen);
  EXPECT_EQ(give_proof(rank, proof), FrameKind::kWelcome);

  Handshake claim = rank_1();
  EXPECT_EQ(give_proof(say_hello(coordinator.port(), claim), proof), FrameKind::kRefused);
  claim = rank_1(Purpose::kHeartbeats);
  EXPECT_EQ(give_proof(say_hello(coordinator.port(), claim), proof), FrameKind::kRefused);
  claim = rank_1();
  const Fd mirror = say_hello(coordinator.port(), claim);
  EXPECT_EQ(give_proof(mirror, make_proof(kToken, Prover::kCoordinator, claim)), FrameKind::kRefused);
  Handshake changed = rank_1();
  const Fd other_rank = say_hello(coordinator.port(), changed);
  changed.rank = 0;
  EXPECT_EQ(give_proof(other_rank, make_proof(kToken, Prover::kRank, changed)), FrameKind::kRefused);
  EXPECT_FALSE(coordinator.joined(1));
}

TEST(Strangers, SetNoValuesAndReportNothing) {
  Coordinator coordinator = make_coordinator(2);
  Rank a(coordinator.port(), 0, 2);
  const std::string set = FrameWriter(FrameKind::kSet).text("nccl/id").text("mine").frame();
  const std::string report = FrameWriter(FrameKind::kReport).number(42).text("I am not a rank of yours").frame();
  for (const std::string& frame : {set, report}) {
    const Fd early = connect_to(kHost, coordinator.port(), soon());
    send_frame(early, frame, soon());
    EXPECT_TRUE(is_closed(early));
    Handshake claim = {.rank = 0, .size = 2};
    const Fd later = say_hello(coordinator.port(), claim);
    send_frame(later, frame, soon());
    EXPECT_TRUE(is_closed(later));
  }
  a.client.set("nccl/id", "the true one");
  EXPECT_EQ(a.client.get(0, "nccl/id"), "the true one");
  EXPECT_FALSE(coordinator.failure());
}

TEST(Strangers, AreClosedAndIgnored) {
  Coordinator coordinator = make_coordinator(1);
  Rank a(coordinator.port(), 0, 1);
  for (const std::string& garbage :
       {std::string("GET / HTTP/1.1\r\n\r\n"),
        std::string("\xff\xff\xff\xff"
                    "boo"),
        std::string(8, '\0'), FrameWriter(FrameKind::kHello).text("wrong magic").frame(),
        FrameWriter(FrameKind::kGoodbye).frame(), FrameWriter(FrameKind::kHello).text(std::string(1000, 'x')).frame(),
        FrameWriter(FrameKind::kHello).text(kWireMagic).number(0).number(1).number(0).text("short").frame(),
        std::string("\1\0\0\0\1", 5)}) {
    const Fd stranger = connect_to(kHost, coordinator.port(), soon());
    send_frame(stranger, garbage, soon());
    EXPECT_TRUE(is_closed(stranger));
  }
  a.client.set("still", "there");
  EXPECT_EQ(a.client.get(0, "still"), "there");
  EXPECT_FALSE(coordinator.failure());
}

// More connections than it keeps, all silent: the oldest ones go, and a rank comes in at once.
TEST(Strangers, DoNotKeepRanksOut) {
  Coordinator coordinator = make_coordinator(1);
  std::vector<Fd> strangers;
  for (int i = 0; i < 300; ++i) strangers.push_back(connect_to(kHost, coordinator.port(), soon()));
  const auto start = steady_clock::now();
  Rank a(coordinator.port(), 0, 1);
  EXPECT_LT(steady_clock::now() - start, milliseconds(4000));  // a silent one would be closed later
  EXPECT_TRUE(is_closed(strangers.front()));
}

// Strangers connect again and again, faster than a rank does.
TEST(Strangers, ThatComeInStreamsDoNotKeepRanksOut) {
  Coordinator coordinator = make_coordinator(2);
  const std::jthread stream([&](const std::stop_token& stop) {
    std::deque<Fd> held;
    for (; !stop.stop_requested(); std::this_thread::sleep_for(milliseconds(1))) {
      if (held.size() > 400) held.pop_front();
      held.push_back(connect_to(kHost, coordinator.port(), soon()));
    }
  });
  std::this_thread::sleep_for(milliseconds(500));
  Rank a(coordinator.port(), 0, 2), b(coordinator.port(), 1, 2);
  a.client.set("key", "value");
  EXPECT_EQ(b.client.get(0, "key"), "value");
}

TEST(Strangers, ARankThatKnowsTheTokenIsBoundedToo) {
  Coordinator coordinator = make_coordinator(2);
  const Fd rank = join_by_hand(coordinator.port(), rank_1());
  const std::string value(1000 << 10, 'x');
  int taken = 0;
  while (taken < 100 &&
         ask(rank, FrameWriter(FrameKind::kSet).text(fmt::format("{}", taken)).text(value).frame()) == FrameKind::kDone)
    ++taken;
  EXPECT_EQ(taken, 16);
  Rank a(coordinator.port(), 0, 2);
  a.client.set("key", value);  // its own room
  EXPECT_EQ(a.client.get(0, "key"), value);
}

TEST(Strangers, ARankThatDoesNotReadItsAnswersIsNotReadEither) {
  Coordinator coordinator = make_coordinator(1);
  Rank a(coordinator.port(), 0, 1);
  a.client.set("key", std::string(1000 << 10, 'x'));
  const Fd greedy = join_by_hand(coordinator.port(), {.rank = 0, .size = 1});
  std::string many;
  for (int i = 0; i < 100; ++i) many += FrameWriter(FrameKind::kGet).number(0).text("key").number(1000).frame();
  send_frame(greedy, many, soon());  // asks before it is answered: it is closed
  EXPECT_TRUE(is_closed(greedy));
  EXPECT_FALSE(coordinator.failure());
}

rlim_t lowest_free_descriptor() {
  const Fd probe(dup(STDERR_FILENO));
  return static_cast<rlim_t>(probe.get());
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// A connection waits to be let in, and no file descriptor is left for it: the coordinator waits too, and does not spin.
TEST(Strangers, WithoutFileDescriptorsItWaits) {
  Coordinator coordinator = make_coordinator(1);
  testing::internal::CaptureStderr();
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit none = old;
  none.rlim_cur = lowest_free_descriptor() + 1;  // for this side of the connection
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  double used = 0;
  {
    const Fd stranger = connect_to(kHost, coordinator.port(), soon());
    const double before = cpu_seconds();
    std::this_thread::sleep_for(milliseconds(500));
    used = cpu_seconds() - before;
    setrlimit(RLIMIT_NOFILE, &old);
  }
  EXPECT_LT(used, 0.1);
  Rank a(coordinator.port(), 0, 1);
  EXPECT_EQ(
      testing::internal::GetCapturedStderr(),
      "mixtune: warning: rank 0 has no file descriptors left for ranks that join: raise their number, ulimit -n\n");
}

TEST(Strangers, OtherJobsAreToldThatTheyAre) {
  Coordinator coordinator = make_coordinator(2);
  const auto refused = [&](int rank, int size, const char* token) {
    return error_of([&] { Rank(coordinator.port(), rank, size, kLong, token); });
  };
  EXPECT_EQ(refused(0, 2, "a guess of sixteen"),
            fmt::format("the coordinator at 127.0.0.1:{}: it refuses rank 0 of 2: this is another job, or its "
                        "MIXTUNE_TOKEN is another; start all ranks by one launcher, with one MIXTUNE_TOKEN, and give "
                        "each job its own MASTER_PORT",
                        coordinator.port()));
  EXPECT_THAT(refused(0, 2, ""), HasSubstr("its MIXTUNE_TOKEN is another"));
  EXPECT_THAT(refused(0, 3, kToken), HasSubstr("this job has 2 ranks"));
  EXPECT_THAT(refused(2, 2, kToken), HasSubstr("this job has 2 ranks"));
  Rank a(coordinator.port(), 0, 2);
  EXPECT_THAT(refused(0, 2, kToken), HasSubstr("this rank has joined before"));
  EXPECT_FALSE(coordinator.failure());
}

// Answers a rank like a coordinator, without the token.
void pretend_to_coordinate(const Fd& rank) {
  receive_frame(rank, soon());
  EXPECT_EQ(ask(rank, FrameWriter(FrameKind::kChallenge).text(std::string(kNonceBytes, 'n')).frame()),
            FrameKind::kProof);
  send_frame(rank, FrameWriter(FrameKind::kWelcome).text(std::string(kProofBytes, 'p')).frame(), soon());
  EXPECT_TRUE(is_closed(rank));
}

// The listener at the port must prove itself, too.
TEST(Strangers, RanksDoNotJoinAStranger) {
  const Fd listener = listen_at(kHost, 0);
  const std::jthread stranger([&](const std::stop_token& stop) {
    for (; !stop.stop_requested(); std::this_thread::sleep_for(milliseconds(1))) {
      const Fd rank(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (rank.get() >= 0) pretend_to_coordinate(rank);
    }
  });
  EXPECT_THAT(error_of([&] { Rank(port_of(listener), 0, 1, milliseconds(1000)); }),
              HasSubstr("what listens there does not know this job's MIXTUNE_TOKEN"));
}

}  // namespace
}  // namespace mixtune
