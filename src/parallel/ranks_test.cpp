#include "parallel/ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "parallel/gloo_communicator.h"
#include "parallel/testing.h"

namespace mixtune {
namespace {

using namespace std::chrono_literals;

// Ranks that are threads of this process, each with its place in `grid`.
void run_ranks(const RankGrid& grid, const std::function<void(const Ranks&, Ctx&)>& body) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  MemoryStore store(10s);
  std::vector<std::thread> threads;
  for (int r = 0; r < grid.world; ++r)
    threads.emplace_back([&, r] {
      RankGrid place = grid;
      place.rank = r;
      const Ranks ranks =
          make_ranks(make_gloo_communicator(store, {.rank = r, .size = grid.world, .timeout = 10s}), place);
      Stack stack("test", {}, 1 << 20);
      Ctx ctx{.device = {}, .stack = stack, .host_stack = stack};
      body(ranks, ctx);
    });
  for (std::thread& thread : threads) thread.join();
}

// The ranks of a group, as its members tell each other.
std::vector<std::string> members(const Ranks& ranks, Ctx& ctx, Communicator& group) {
  return gather_texts(ctx, group, "ranks of a group", std::to_string(ranks.grid.rank));
}

std::vector<std::string> names(const std::vector<int>& ranks) {
  std::vector<std::string> names;
  for (const int rank : ranks) names.push_back(std::to_string(rank));
  return names;
}

TEST(Ranks, GroupsWithoutTensorAndPipelineParallelism) {
  run_ranks({.world = 4, .expert_parallel = 2}, [](const Ranks& ranks, Ctx& ctx) {
    EXPECT_EQ(members(ranks, ctx, *ranks.all), names({0, 1, 2, 3}));
    EXPECT_EQ(ranks.data, ranks.all);  // the same communicator
    EXPECT_EQ(ranks.dense, ranks.all);
    EXPECT_EQ(members(ranks, ctx, *ranks.expert_parallel),
              names(ranks.grid.rank < 2 ? std::vector{0, 1} : std::vector{2, 3}));
    EXPECT_EQ(members(ranks, ctx, *ranks.experts), names(ranks.grid.rank % 2 ? std::vector{1, 3} : std::vector{0, 2}));
  });
}

TEST(Ranks, GroupsOfAnyGridAreThoseOfItsAxes) {
  const RankGrid grid = {.world = 8, .tensor_parallel = 2, .pipeline_parallel = 2, .expert_parallel = 4};
  run_ranks(grid, [](const Ranks& ranks, Ctx& ctx) {
    EXPECT_EQ(members(ranks, ctx, *ranks.all), names(ranks.grid.ranks(kAllAxes)));
    EXPECT_EQ(members(ranks, ctx, *ranks.data), names(ranks.grid.ranks(kDataAxes)));
    EXPECT_EQ(ranks.dense, ranks.data);
    EXPECT_EQ(members(ranks, ctx, *ranks.expert_parallel), names(ranks.grid.ranks(Axis::kEp)));
    EXPECT_EQ(ranks.experts->size(), 1);
  });
}

TEST(Ranks, PlannedOnesHaveTheSizesOfTheGrid) {
  const Ranks ranks = planned_ranks({.world = 16, .rank = 5, .tensor_parallel = 2, .expert_parallel = 4}, 7);
  EXPECT_EQ(ranks.all->size(), 16);
  EXPECT_EQ(ranks.all->rank(), 5);
  EXPECT_EQ(ranks.data->size(), 8);
  EXPECT_EQ(ranks.data->rank(), 2);
  EXPECT_EQ(ranks.dense, ranks.data);
  EXPECT_EQ(ranks.expert_parallel->size(), 4);
  EXPECT_EQ(ranks.expert_parallel->rank(), 1);
  EXPECT_EQ(ranks.experts->size(), 4);
  EXPECT_EQ(ranks.experts->rank(), 1);
  EXPECT_EQ(ranks.gpu_bytes, 7u);
  EXPECT_EQ(planned_ranks({}, 7).gpu_bytes, 0u);
}

TEST(Ranks, BarrierWaitsForAll) {
  std::atomic<int> came = 0;
  run_ranks({.world = 3}, [&](const Ranks& ranks, Ctx& ctx) {
    std::this_thread::sleep_for(ranks.grid.rank * 50ms);
    ++came;
    barrier(ctx, *ranks.all, "all have come");
    EXPECT_EQ(came, 3);
  });
}

TEST(Ranks, OneAloneCallsAll) {
  const Ranks& alone = single_rank();
  for (const auto& group : {alone.all, alone.data, alone.dense, alone.experts, alone.expert_parallel})
    EXPECT_EQ(group->size(), 1);
  alone.set_step(1);
  alone.set_activity("forward");
  alone.advance();
  alone.compare({{"data", "1"}});
  alone.give_up("a GPU that hangs");
  Stack stack("test", {}, 1 << 10);
  Ctx ctx{.device = {}, .stack = stack, .host_stack = stack};
  barrier(ctx, *alone.all, "nobody else");
  EXPECT_EQ(gather_texts(ctx, *alone.all, "text", "own"), std::vector<std::string>{"own"});
}

}  // namespace
}  // namespace mixtune
