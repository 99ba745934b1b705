#include "parallel/communicator.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <csignal>
#include <exception>
#include <functional>
#include <latch>
#include <random>
#include <thread>
#include <vector>

#include "parallel/gloo_communicator.h"
#include "parallel/testing.h"

namespace mixtune {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;
using Message = Communicator::Message;

constexpr const char* kWhat = "tokens to experts";

// The communicators of one rank, a thread here.
struct Rank {
  std::unique_ptr<Communicator> world;
  Stack stack{"test", {}, size_t{256} << 20};
  Ctx ctx{.device = {}, .stack = stack, .host_stack = stack};

  int id() const { return world->rank(); }
  template <class T>
  void all_reduce(std::vector<T>& x) {
    world->all_reduce(ctx, kWhat, host_tensor(x.data(), {static_cast<int64_t>(x.size())}));
  }
};

void run_ranks(int size, const std::function<void(Rank&)>& body, std::chrono::milliseconds timeout = 20s,
               const std::function<bool()>& goes_on = {}) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  MemoryStore store(timeout);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      try {
        Rank rank{.world =
                      make_gloo_communicator(store, {.rank = r, .size = size, .timeout = timeout, .goes_on = goes_on})};
        body(rank);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << r << ": " << error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// Values whose fp32 sums depend on the order.
template <class T>
std::vector<T> values(int rank, size_t n) {
  std::mt19937 random(static_cast<unsigned>(rank) + 17);
  std::vector<T> x(n);
  for (T& value : x) value = static_cast<T>(std::ldexp(static_cast<double>(random()) - 2e9, -10));
  return x;
}

template <class T>
std::vector<T> sum_in_order(int ranks, size_t n) {
  std::vector<T> sum = values<T>(0, n);
  for (int r = 1; r < ranks; ++r) {
    const std::vector<T> x = values<T>(r, n);
    for (size_t i = 0; i < n; ++i) sum[i] += x[i];
  }
  return sum;
}

TEST(SingleCommunicator, CopiesWhatItSendsToItself) {
  const auto single = make_single_communicator();
  Stack stack("test", {}, 1 << 20);
  Ctx ctx{.device = {}, .stack = stack, .host_stack = stack};
  std::vector<int32_t> from = {1, 2, 3}, to(3);
  const Tensor send = host_tensor(from.data(), {3}), receive = host_tensor(to.data(), {3});
  const std::vector<Message> sends = {{0, send.slice(0, 2)}, {0, send.slice(0, 0)}, {0, send.slice(2, 1)}};
  const std::vector<Message> receives = {{0, receive.slice(1, 2)}, {0, receive.slice(0, 1)}};
  single->exchange(ctx, kWhat, sends, receives);
  EXPECT_EQ(to, (std::vector<int32_t>{3, 1, 2}));
  single->all_reduce(ctx, kWhat, send);
  EXPECT_EQ(from, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(single->split(7)->size(), 1);
  EXPECT_THROW(single->exchange(ctx, kWhat, sends, {}), std::logic_error);
}

// Rank a sends b of two messages with 3ab and 1000(a + b) + 1 elements; every pair has its own numbers.
TEST(GlooCommunicator, ExchangesUnevenEmptyAndOwnMessages) {
  constexpr int kRanks = 3;
  const auto number = [](int a, int b, int which, int64_t i) {
    return ((a * kRanks + b) * 2 + which) * 100000 + i;
  };
  const auto count = [](int a, int b, int which) {
    return which == 0 ? 3 * a * b : 1000 * (a + b) + 1;
  };
  run_ranks(kRanks, [&](Rank& rank) {
    for (int round = 0; round < 3; ++round) {
      std::vector<std::vector<int64_t>> sent, received;
      std::vector<Message> sends, receives;
      for (int which = 0; which < 2; ++which)
        for (int peer = 0; peer < kRanks; ++peer) {
          auto& out = sent.emplace_back(count(rank.id(), peer, which));
          for (size_t i = 0; i < out.size(); ++i)
            out[i] = number(rank.id(), peer, which, static_cast<int64_t>(i)) + round;
          auto& in = received.emplace_back(count(peer, rank.id(), which));
          sends.push_back({peer, host_tensor(out.data(), {static_cast<int64_t>(out.size())})});
          receives.push_back({peer, host_tensor(in.data(), {static_cast<int64_t>(in.size())})});
        }
      rank.world->exchange(rank.ctx, kWhat, sends, receives);
      for (int m = 0; m < 2 * kRanks; ++m)
        for (size_t i = 0; i < received[m].size(); ++i)
          ASSERT_EQ(received[m][i], number(m % kRanks, rank.id(), m / kRanks, static_cast<int64_t>(i)) + round);
    }
  });
}

TEST(GlooCommunicator, MovesMoreThanSocketsHold) {
  constexpr int64_t kElements = 6 << 20;
  run_ranks(2, [&](Rank& rank) {
    std::vector<int32_t> out(kElements, 5 + rank.id()), in(kElements);
    const int peer = 1 - rank.id();
    rank.world->exchange(rank.ctx, kWhat, std::vector<Message>{{peer, host_tensor(out.data(), {kElements})}},
                         std::vector<Message>{{peer, host_tensor(in.data(), {kElements})}});
    EXPECT_EQ(in, std::vector<int32_t>(kElements, 5 + peer));
  });
}

template <class T>
class GlooSums : public ::testing::Test {};
using SumTypes = ::testing::Types<float, double, int32_t, int64_t>;
TYPED_TEST_SUITE(GlooSums, SumTypes);

// 100'003 elements are more than 64 KiB, and uneven pieces.
TYPED_TEST(GlooSums, AddInTheOrderOfRanks) {
  run_ranks(3, [](Rank& rank) {
    for (const size_t n : {0, 1, 2, 1000, 100'003}) {
      auto x = values<TypeParam>(rank.id(), n);
      rank.all_reduce(x);
      EXPECT_EQ(x, sum_in_order<TypeParam>(3, n)) << n;
    }
    auto x = values<TypeParam>(rank.id(), 300);
    const auto sum = sum_in_order<TypeParam>(3, 300);
    rank.world->reduce_scatter(rank.ctx, kWhat, host_tensor(x.data(), {3, 100}));
    EXPECT_TRUE(std::equal(&x[rank.id() * 100], &x[rank.id() * 100] + 100, &sum[rank.id() * 100]));
    EXPECT_EQ(rank.stack.mark(), 0u);
  });
}

std::vector<BF16> bf16_values(int rank, size_t n) {
  std::vector<BF16> x;
  for (const float value : values<float>(rank, n)) x.push_back(to_bf16(value));
  return x;
}

// Adding in bf16 would round with every rank, and lose what is small beside the sum.
TEST(GlooCommunicator, AddsBf16InFp32AndRoundsOnce) {
  constexpr int kRanks = 4;
  run_ranks(kRanks, [](Rank& rank) {
    for (const int64_t n : {1000, 100'004}) {
      std::vector<float> sum(n);
      for (int r = 0; r < kRanks; ++r) {
        const auto x = bf16_values(r, n);
        for (int64_t i = 0; i < n; ++i) sum[i] += to_float(x[i]);
      }
      auto all = bf16_values(rank.id(), n), scattered = all;
      rank.all_reduce(all);
      rank.world->reduce_scatter(rank.ctx, kWhat, host_tensor(scattered.data(), {n}));
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(all[i].bits, to_bf16(sum[i]).bits) << i;
        if (i / (n / kRanks) == rank.id()) {
          ASSERT_EQ(scattered[i].bits, all[i].bits) << i;
        }
      }
    }
  });
}

TEST(GlooCommunicator, Gathers) {
  run_ranks(3, [](Rank& rank) {
    std::vector<uint8_t> x(9, 99);
    for (int i = 0; i < 3; ++i) x[rank.id() * 3 + i] = static_cast<uint8_t>(rank.id() * 3 + i);
    rank.world->all_gather(rank.ctx, kWhat, host_tensor(x.data(), {9}));
    EXPECT_EQ(x, (std::vector<uint8_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  });
}

TEST(GlooCommunicator, RefusesWhatItCannotAdd) {
  run_ranks(2, [](Rank& rank) {
    std::vector<uint8_t> x(4);
    EXPECT_THROW(rank.all_reduce(x), std::logic_error);
    Ctx gpu{.device = {DeviceType::kCuda, 0}, .stack = rank.stack, .host_stack = rank.stack};
    std::vector<float> y(2);
    EXPECT_THROW(rank.world->all_gather(gpu, kWhat, host_tensor(y.data(), {2})), std::logic_error);
  });
}

TEST(GlooCommunicator, SplitsIntoGroups) {
  run_ranks(5, [](Rank& rank) {
    const int color = rank.id() == 4 ? -1 : rank.id() % 2;
    for (int again = 0; again < 2; ++again) {
      const auto group = rank.world->split(color);
      ASSERT_EQ(group->size(), color < 0 ? 1 : 2);
      EXPECT_EQ(group->rank(), color < 0 ? 0 : rank.id() / 2);
      std::vector<int32_t> x = {rank.id()};
      group->all_reduce(rank.ctx, kWhat, host_tensor(x.data(), {1}));
      EXPECT_EQ(x[0], color < 0 ? 4 : 2 * color + 2);
      EXPECT_EQ(group->split(rank.id())->size(), 1);
      EXPECT_EQ(group->split(0)->size(), group->size());
    }
  });
}

TEST(GlooCommunicator, RanksLeaveAfterTheirLastMessage) {
  run_ranks(3, [](Rank& rank) {
    for (int round = 0; round < 16; ++round) {
      const auto group = rank.world->split(0);
      std::vector<int32_t> x = {rank.id()};
      const Tensor value = host_tensor(x.data(), {1});
      std::vector<Communicator::Message> sends, receives = {{1, value}};
      if (rank.id() == 1) sends = {{0, value}, {2, value}}, receives = {};
      if (round % 2 == 0) group->exchange(rank.ctx, kWhat, sends, receives);
      EXPECT_EQ(x[0], round % 2 == 0 ? 1 : rank.id());
    }
  });
}

TEST(GlooCommunicator, EightRanks) {
  run_ranks(8, [](Rank& rank) {
    for (const size_t n : {1000, 50'000}) {
      auto x = values<float>(rank.id(), n);
      rank.all_reduce(x);
      EXPECT_EQ(x, sum_in_order<float>(8, n));
    }
  });
}

TEST(GlooCommunicator, OneRankNeedsNoOther) {
  MemoryStore store(1ms);
  EXPECT_EQ(make_gloo_communicator(store, {.rank = 0, .size = 1, .timeout = 1s})->size(), 1);
}

TEST(GlooFailure, NamesTheRankThatNeverComes) {
  MemoryStore store(200ms);
  const auto start = Clock::now();
  EXPECT_THAT(error_of([&] { make_gloo_communicator(store, {.rank = 0, .size = 2, .timeout = 200ms}); }),
              AllOf(HasSubstr("connecting the ranks"), HasSubstr("rank 1 of 2 was not reached")));
  EXPECT_LT(Clock::now() - start, 1s);
}

TEST(GlooFailure, NamesAHostThatIsNotThisMachine) {
  MemoryStore store(1s);
  for (const char* host : {"no.such.host.invalid", "192.0.2.1"})
    EXPECT_THAT(error_of([&] { make_gloo_communicator(store, {.rank = 0, .size = 2, .host = host, .timeout = 1s}); }),
                AllOf(HasSubstr(host), HasSubstr("give a name or address")));
}

// Rank 2 learns afterwards that the others did not wait for it.
TEST(GlooFailure, NamesTheRankThatDoesNotAnswer) {
  std::latch done(2);
  const std::string failure = "tokens to experts: rank 2 of 3 did not answer within 0.3 s";
  run_ranks(
      3,
      [&](Rank& rank) {
        std::vector<float> x(10);
        if (rank.id() == 2) done.wait();
        EXPECT_THAT(error_of([&] { rank.all_reduce(x); }), HasSubstr(failure));
        const auto start = Clock::now();
        EXPECT_THAT(error_of([&] { rank.all_reduce(x); }), HasSubstr(failure));
        EXPECT_LT(Clock::now() - start, 100ms);
        if (rank.id() != 2) done.count_down();
      },
      300ms);
}

TEST(GlooFailure, NamesTheRankThatLeaves) {
  run_ranks(3, [](Rank& rank) {
    if (rank.id() == 2) return;
    const auto start = Clock::now();
    std::vector<float> x(10);
    EXPECT_THAT(error_of([&] { rank.all_reduce(x); }), HasSubstr("tokens to experts: rank 2 of 3 was lost"));
    EXPECT_LT(Clock::now() - start, 1s);
  });
}

TEST(GlooFailure, NamesAGroupsRankAsTheWorldDoes) {
  run_ranks(4, [](Rank& rank) {
    const auto group = rank.world->split(rank.id() % 2);
    std::vector<float> x(10);
    const auto reduce = [&] {
      group->all_reduce(rank.ctx, kWhat, host_tensor(x.data(), {10}));
    };
    if (rank.id() == 3) return;
    EXPECT_THAT(error_of(reduce), HasSubstr(rank.id() == 1 ? "rank 3 of 4 was lost" : "no error"));
  });
}

// Rank 1 receives `bytes` of rank 0 in memory whose second half cannot be written: it loses its connection in the
// middle of that message. `back` bytes go the other way meanwhile.
void lose_in_the_middle(int64_t bytes, int64_t back) {
  void* bad = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(bad, MAP_FAILED);
  ASSERT_EQ(mprotect(static_cast<char*>(bad) + bytes / 2, bytes / 2, PROT_NONE), 0);
  run_ranks(2, [&](Rank& rank) {
    std::vector<uint8_t> there(bytes), again(back);
    const bool first = rank.id() == 0;
    const Message message{1 - rank.id(), host_tensor(first ? there.data() : static_cast<uint8_t*>(bad), {bytes})};
    const Message answer{1 - rank.id(), host_tensor(again.data(), {back})};
    const auto start = Clock::now();
    const std::string error = error_of([&] {
      rank.world->exchange(rank.ctx, kWhat, std::vector<Message>{first ? message : answer},
                           std::vector<Message>{first ? answer : message});
    });
    // Rank 0 may have got all that it waits for in time.
    if (!first || error != "no error") {
      EXPECT_THAT(error, HasSubstr(fmt::format("rank {} of 2 was lost", 1 - rank.id())));
    }
    EXPECT_LT(Clock::now() - start, 5s);
  });
  munmap(bad, bytes);
}

TEST(GlooFailure, IsNoticedInTheMiddleOfASend) {
  lose_in_the_middle(64 << 20, 0);
}

TEST(GlooFailure, IsNoticedInTheMiddleOfAReceive) {
  lose_in_the_middle(8 << 10, 64 << 20);
}

// It waits for as long as goes_on says.
TEST(GlooCommunicator, WaitsOnForARankThatIsAtWork) {
  std::atomic<int> asked = 0;
  run_ranks(
      2,
      [](Rank& rank) {
        if (rank.id() == 1) std::this_thread::sleep_for(2500ms);
        std::vector<int32_t> x = {1};
        rank.all_reduce(x);
        EXPECT_EQ(x[0], 2);
      },
      1000ms, [&] { return ++asked > 0; });
  EXPECT_GE(asked, 2);
}

}  // namespace
}  // namespace mixtune
