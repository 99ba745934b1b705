#include "parallel/traffic.h"

#include <gtest/gtest.h>

#include <csignal>
#include <latch>
#include <thread>
#include <vector>

#include "parallel/gloo_communicator.h"
#include "parallel/ranks.h"
#include "parallel/testing.h"

namespace mixtune {
namespace {

using namespace std::chrono_literals;
using Message = Communicator::Message;

// Rank 1 of four, whose operations take 2 ms each.
class SlowCommunicator final : public Communicator {
 public:
  explicit SlowCommunicator(int size = 4) : Communicator(1, size) {}

  void exchange(Ctx&, const char*, std::span<const Message>, std::span<const Message>) override { work(); }
  void all_reduce(Ctx&, const char*, const Tensor&) override { work(); }
  void reduce_scatter(Ctx&, const char*, const Tensor&) override { work(); }
  void all_gather(Ctx&, const char*, const Tensor&) override { work(); }
  std::unique_ptr<Communicator> split(int color) override { return std::make_unique<SlowCommunicator>(color); }

 private:
  static void work() { std::this_thread::sleep_for(2ms); }
};

class TrafficTest : public testing::Test {
 protected:
  void SetUp() override { traffic_.start(); }
  int64_t bytes(const char* what) { return traffic_.of({what}).bytes; }

  Traffic traffic_;
  std::unique_ptr<Communicator> ranks_ = with_traffic(std::make_unique<SlowCommunicator>(), traffic_);
  Stack stack_{"test", {}, 1 << 10};
  Ctx ctx_{.device = {}, .stack = stack_, .host_stack = stack_};
  std::vector<float> values_ = std::vector<float>(100);
  Tensor x_ = host_tensor(values_.data(), {100});  // 400 bytes
};

TEST_F(TrafficTest, CountsWhatIsSentToOthers) {
  const std::vector<Message> sends = {{0, x_.slice(0, 10)}, {1, x_.slice(10, 50)}, {3, x_.slice(60, 5)}};
  ranks_->exchange(ctx_, "exchange", sends, {});
  EXPECT_EQ(bytes("exchange"), 60);
  ranks_->all_reduce(ctx_, "all_reduce", x_);
  EXPECT_EQ(bytes("all_reduce"), 600);
  ranks_->reduce_scatter(ctx_, "reduce_scatter", x_);
  EXPECT_EQ(bytes("reduce_scatter"), 300);
  ranks_->all_gather(ctx_, "all_gather", x_);
  EXPECT_EQ(bytes("all_gather"), 300);
  EXPECT_EQ(traffic_.all().bytes, 1260);
  EXPECT_EQ(traffic_.all().calls, 4);
  EXPECT_GE(traffic_.all().seconds, 4 * 2e-3);
  EXPECT_EQ(traffic_.all().exposed_seconds, traffic_.all().seconds);  // a CPU does nothing beside
}

TEST_F(TrafficTest, AddsUpByNameUntilCleared) {
  const std::string same = "tokens";  // at another address
  ranks_->all_gather(ctx_, "tokens", x_);
  ranks_->all_gather(ctx_, same.c_str(), x_);
  ranks_->all_gather(ctx_, "weights", x_);
  EXPECT_EQ(traffic_.of({"tokens"}).calls, 2);
  EXPECT_EQ(traffic_.of({"tokens", "weights"}).calls, 3);
  EXPECT_EQ(traffic_.of({"gradients"}).calls, 0);
  EXPECT_GE(traffic_.of({"tokens"}).seconds, 2 * 2e-3);
  traffic_.start();
  EXPECT_EQ(traffic_.all().calls, 0);
  EXPECT_EQ(traffic_.all().bytes, 0);
  EXPECT_EQ(traffic_.all().seconds, 0);
}

TEST_F(TrafficTest, CountsInGroupsButNotInAGroupOfOne) {
  ranks_->split(3)->all_gather(ctx_, "tokens", x_);
  EXPECT_EQ(traffic_.of({"tokens"}).calls, 1);
  ranks_->split(1)->all_gather(ctx_, "tokens", x_);
  EXPECT_EQ(traffic_.of({"tokens"}).calls, 1);
}

TEST_F(TrafficTest, GoesOnWithAnotherCtx) {
  ranks_->all_gather(ctx_, "tokens", x_);
  traffic_.forget_ctx();
  ranks_->all_gather(ctx_, "tokens", x_);  // not counted
  EXPECT_EQ(traffic_.of({"tokens"}).calls, 1);
  Stack stack("another", {}, 1 << 10);
  Ctx ctx{.device = {}, .stack = stack, .host_stack = stack};
  traffic_.start();
  ranks_->all_gather(ctx, "tokens", x_);
  EXPECT_EQ(traffic_.of({"tokens"}).calls, 1);
  EXPECT_GE(traffic_.of({"tokens"}).seconds, 2e-3);
}

// Of two ranks the second is late: the first one's time includes its waiting.
TEST(RanksTraffic, HasTheWaitingForOthers) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  MemoryStore store(10s);
  std::vector<Traffic::Sum> sums(2);
  std::latch ready(2);
  const auto rank = [&](int r) {
    const Ranks ranks = make_ranks(make_gloo_communicator(store, {.rank = r, .size = 2, .timeout = 10s}),
                                   {.world = 2, .rank = r, .expert_parallel = 2});
    Stack stack("test", {}, 1 << 20);
    Ctx ctx{.device = {}, .stack = stack, .host_stack = stack};
    ranks.traffic->start();
    std::vector<float> x(1000);
    ready.arrive_and_wait();
    if (r == 1) std::this_thread::sleep_for(100ms);
    ranks.all->all_gather(ctx, "weights", host_tensor(x.data(), {1000}));
    ranks.expert_parallel->all_gather(ctx, "weights", host_tensor(x.data(), {1000}));
    sums[r] = ranks.traffic->all();
  };
  std::thread second([&] { rank(1); });
  rank(0);
  second.join();
  for (const Traffic::Sum& sum : sums) {
    EXPECT_EQ(sum.calls, 2);
    EXPECT_EQ(sum.bytes, 4000);
  }
  EXPECT_GT(sums[0].seconds, 0.08);
  EXPECT_GT(sums[0].seconds, sums[1].seconds);
}

TEST(RanksTraffic, IsNoneForOneRank) {
  EXPECT_EQ(make_ranks(make_single_communicator(), {}).traffic, nullptr);
  EXPECT_EQ(single_rank().traffic, nullptr);
}

}  // namespace
}  // namespace mixtune
