#include "parallel/rank_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"

namespace mixtune {
namespace {

constexpr int64_t kExperts = 720720;  // divides by all of 1..16

std::string error_of(int world, int expert_parallel, int64_t experts) {
  try {
    make_rank_grid(world, 0, expert_parallel, experts, "expert_model_parallel_size");
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

// Calls body(world, ep) for each grid of 1..16 ranks.
template <class Body>
void for_each_grid(Body body) {
  for (int world = 1; world <= 16; ++world)
    for (int ep = 1; ep <= world; ++ep)
      if (world % ep == 0) body(world, ep);
}

TEST(RankGrid, EveryGroupHoldsEachExpertOnce) {
  for_each_grid([](int world, int ep) {
    std::map<int, int64_t> next;  // of an ep group: the expert that its next rank begins with
    for (int rank = 0; rank < world; ++rank) {
      const RankGrid grid = make_rank_grid(world, rank, ep, kExperts, "");
      const auto experts = grid.experts(kExperts);
      EXPECT_EQ(experts.first, next[grid.ep_color()]) << grid.str() << ", rank " << rank;
      next[grid.ep_color()] = experts.first + experts.count;
    }
    EXPECT_EQ(next.size(), static_cast<size_t>(world / ep));
    for (const auto& [color, end] : next) EXPECT_EQ(end, kExperts);
  });
}

TEST(RankGrid, ColorsAndRanksAgree) {
  for_each_grid([](int world, int ep) {
    std::map<int, std::vector<int>> ep_groups, edp_groups;
    for (int rank = 0; rank < world; ++rank) {
      const RankGrid grid = make_rank_grid(world, rank, ep, kExperts, "");
      EXPECT_EQ(grid.data_parallel(), world);
      EXPECT_EQ(grid.expert_data_parallel() * ep, world);
      // The place in a group, as Communicator::split counts it.
      EXPECT_EQ(grid.ep_rank(), static_cast<int>(ep_groups[grid.ep_color()].size()));
      EXPECT_EQ(grid.edp_rank(), static_cast<int>(edp_groups[grid.edp_color()].size()));
      ep_groups[grid.ep_color()].push_back(rank);
      edp_groups[grid.edp_color()].push_back(rank);
    }
    EXPECT_EQ(ep_groups.size(), static_cast<size_t>(world / ep));
    EXPECT_EQ(edp_groups.size(), static_cast<size_t>(ep));
    for (const auto& [color, ranks] : ep_groups) EXPECT_EQ(ranks.back() - ranks.front(), ep - 1);  // neighbours
    std::set<int64_t> firsts;
    for (const auto& [color, ranks] : edp_groups) {
      const auto first = [&](int rank) {
        return make_rank_grid(world, rank, ep, kExperts, "").experts(kExperts).first;
      };
      for (const int rank : ranks) EXPECT_EQ(first(rank), first(ranks[0]));
      EXPECT_TRUE(firsts.insert(first(ranks[0])).second);
    }
  });
}

TEST(RankGrid, TellsItsShape) {
  EXPECT_EQ(make_rank_grid(8, 3, 4, 8, "").str(), "8 ranks: ep 4 x edp 2");
  EXPECT_EQ(make_rank_grid(1, 0, 1, 8, "").str(), "1 rank: ep 1 x edp 1");
}

TEST(RankGrid, ErrorsShowTheArithmetic) {
  EXPECT_EQ(error_of(8, 3, 8),
            "expert_model_parallel_size: 3 does not divide 8 ranks: 8 / 3 = 2 remainder 2; use 1, 2, 4 or 8");
  EXPECT_EQ(error_of(8, 4, 6),
            "expert_model_parallel_size: 4 does not divide 6 experts: 6 / 4 = 1 remainder 2; use 1 or 2");
  EXPECT_EQ(error_of(1, 2, 8), "expert_model_parallel_size: 2 does not divide 1 rank: 1 / 2 = 0 remainder 1; use 1");
  EXPECT_EQ(error_of(8, 0, 8), "expert_model_parallel_size: 0 is less than 1; use 1, 2, 4 or 8");
  EXPECT_EQ(error_of(8, 8, 8), "no error");
}

}  // namespace
}  // namespace mixtune
