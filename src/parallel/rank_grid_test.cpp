#include "parallel/rank_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

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
      EXPECT_EQ(experts.first, next[grid.color(Axis::kEp)]) << grid.str() << ", rank " << rank;
      next[grid.color(Axis::kEp)] = experts.first + experts.count;
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
      EXPECT_EQ(grid.size(Axis::kDp), world);
      EXPECT_EQ(grid.size(Axis::kEdp) * ep, world);
      // The place in a group, as Communicator::split counts it.
      EXPECT_EQ(grid.position(Axis::kEp), static_cast<int>(ep_groups[grid.color(Axis::kEp)].size()));
      EXPECT_EQ(grid.position(Axis::kEdp), static_cast<int>(edp_groups[grid.color(Axis::kEdp)].size()));
      ep_groups[grid.color(Axis::kEp)].push_back(rank);
      edp_groups[grid.color(Axis::kEdp)].push_back(rank);
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
  const RankGrid all = {
      .world = 16, .tensor_parallel = 2, .pipeline_parallel = 2, .expert_tensor_parallel = 1, .expert_parallel = 4};
  EXPECT_EQ(all.str(), "16 ranks: tp 2 x cp 1 x dp 4 x pp 2, etp 1 x ep 4 x edp 2");
}

constexpr Axis kAttention[] = {Axis::kTp, Axis::kCp, Axis::kDp, Axis::kPp};
constexpr Axis kOfExperts[] = {Axis::kEtp, Axis::kEp, Axis::kEdp, Axis::kPp};

using Groups = std::set<std::vector<int>>;

// The groups of all ranks.
Groups groups(RankGrid grid, Axes axes) {
  Groups all;
  for (grid.rank = 0; grid.rank < grid.world; ++grid.rank) all.insert(grid.ranks(axes));
  return all;
}

TEST(RankGrid, ExpertsSpreadOverTwoOfEightRanks) {
  const RankGrid grid = {.world = 8, .expert_parallel = 2};
  EXPECT_EQ(groups(grid, Axis::kEp), (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  EXPECT_EQ(groups(grid, Axis::kEdp), (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}}));
  EXPECT_EQ(groups(grid, Axis::kDp), (Groups{{0, 1, 2, 3, 4, 5, 6, 7}}));
  EXPECT_EQ(groups(grid, kDataAxes), groups(grid, kAllAxes));
  EXPECT_EQ(groups(grid, Axis::kTp), (Groups{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}}));
}

TEST(RankGrid, TwoStagesOfEightRanksWithTensorAndExpertParallelism) {
  const RankGrid grid = {.world = 16, .tensor_parallel = 2, .pipeline_parallel = 2, .expert_parallel = 4};
  EXPECT_EQ(groups(grid, Axis::kTp), (Groups{{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}, {10, 11}, {12, 13}, {14, 15}}));
  EXPECT_EQ(groups(grid, Axis::kDp), (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}));
  EXPECT_EQ(groups(grid, kDataAxes), groups(grid, Axis::kDp));
  EXPECT_EQ(groups(grid, Axis::kPp), (Groups{{0, 8}, {1, 9}, {2, 10}, {3, 11}, {4, 12}, {5, 13}, {6, 14}, {7, 15}}));
  EXPECT_EQ(groups(grid, Axis::kEp), (Groups{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}}));
  EXPECT_EQ(groups(grid, Axis::kEdp), (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}, {8, 12}, {9, 13}, {10, 14}, {11, 15}}));
  EXPECT_EQ(groups(grid, {Axis::kTp, Axis::kDp}), (Groups{{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12, 13, 14, 15}}));
  EXPECT_EQ(groups(grid, {Axis::kEp, Axis::kPp}), (Groups{{0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}}));
}

// The divisors of n.
std::vector<int> divisors_of(int n) {
  std::vector<int> all;
  for (int d = 1; d <= n; ++d)
    if (n % d == 0) all.push_back(d);
  return all;
}

// Calls body(grid) for each legal grid of `world` ranks.
template <class Body>
void for_each_legal_grid(int world, Body body) {
  for (const int pp : divisors_of(world))
    for (const int tp : divisors_of(world / pp))
      for (const int cp : divisors_of(world / pp / tp))
        for (const int etp : divisors_of(world / pp))
          for (const int ep : divisors_of(world / pp / etp))
            body(RankGrid{.world = world,
                          .tensor_parallel = tp,
                          .context_parallel = cp,
                          .pipeline_parallel = pp,
                          .expert_tensor_parallel = etp,
                          .expert_parallel = ep});
}

// The groups along `axes`, by color. Checks that every rank is in one, at its position, and finds all of it from there.
std::vector<std::vector<int>> partition(RankGrid grid, Axes axes) {
  const int size = grid.size(axes);
  std::vector<std::vector<int>> groups(grid.world / size);
  for (grid.rank = 0; grid.rank < grid.world; ++grid.rank) {
    std::vector<int>& group = groups.at(grid.color(axes));
    if (grid.position(axes) != static_cast<int>(group.size())) ADD_FAILURE() << grid.str() << ", rank " << grid.rank;
    group.push_back(grid.rank);
  }
  for (const std::vector<int>& group : groups) {
    grid.rank = group.back();
    if (grid.ranks(axes) != group || static_cast<int>(group.size()) != size)
      ADD_FAILURE() << grid.str() << ", the group of rank " << grid.rank;
  }
  return groups;
}

// How many sets of ranks remain when the ranks of each group are joined.
int joined(int world, const std::vector<std::vector<std::vector<int>>>& partitions) {
  std::vector<int> leader(world);
  std::iota(leader.begin(), leader.end(), 0);
  int sets = world;
  const auto find = [&](int rank) {
    while (leader[rank] != rank) rank = leader[rank];
    return rank;
  };
  for (const auto& groups : partitions)
    for (const auto& group : groups)
      for (const int rank : group)
        if (const int a = find(group[0]), b = find(rank); a != b) leader[b] = a, --sets;
  return sets;
}

void check_layout(const RankGrid& grid, std::span<const Axis> axes) {
  int product = 1;
  std::vector<std::vector<std::vector<int>>> partitions;
  for (const Axis axis : axes) {
    product *= grid.size(axis);
    partitions.push_back(partition(grid, axis));
    // Ranks on one axis lie as far apart as all axes that vary faster are large: on the first they are neighbours.
    const std::vector<int>& first = partitions.back()[0];
    for (size_t i = 0; i < first.size(); ++i)
      if (first[i] != static_cast<int>(i) * product / grid.size(axis)) ADD_FAILURE() << grid.str();
  }
  if (product != grid.world || joined(grid.world, partitions) != 1) ADD_FAILURE() << grid.str();
}

TEST(RankGrid, GroupsOfEveryAxisPartitionEveryLegalGrid) {
  for (int world = 1; world <= 64; ++world)
    for_each_legal_grid(world, [](const RankGrid& grid) {
      if (!grid.legal()) ADD_FAILURE() << grid.world;
      check_layout(grid, kAttention);
      check_layout(grid, kOfExperts);
      // Each stage of attention is one of the experts'.
      if (partition(grid, {Axis::kTp, Axis::kCp, Axis::kDp}) != partition(grid, {Axis::kEtp, Axis::kEp, Axis::kEdp}))
        ADD_FAILURE() << grid.str();
      if (grid.size(kAllAxes) != grid.world || grid.color(kAllAxes) != 0) ADD_FAILURE() << grid.str();
    });
}

// Tries every set of axes, on a grid where no axis is trivial.
TEST(RankGrid, GroupsOfSeveralAxes) {
  const RankGrid grid = {.world = 2 * 3 * 2 * 3 * 2,
                         .tensor_parallel = 2,
                         .context_parallel = 3,
                         .pipeline_parallel = 2,
                         .expert_tensor_parallel = 3,
                         .expert_parallel = 2};
  for (const std::span<const Axis> layout : {std::span<const Axis>(kAttention), std::span<const Axis>(kOfExperts)})
    for (const Axis a : layout)
      for (const Axis b : layout)
        for (const Axis c : layout) {
          partition(grid, {a, b, c});
          const std::set<Axis> each = {a, b, c};
          int size = 1;
          for (const Axis axis : each) size *= grid.size(axis);
          EXPECT_EQ(grid.size({a, b, c}), size);
          EXPECT_EQ(joined(grid.world, {partition(grid, a), partition(grid, b), partition(grid, c)}),
                    grid.world / size);
        }
}

TEST(RankGrid, WhatIsLegal) {
  EXPECT_TRUE((RankGrid{.world = 12, .rank = 11, .tensor_parallel = 3, .pipeline_parallel = 2}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .rank = 12}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .rank = -1}.legal()));
  EXPECT_FALSE((RankGrid{.world = 0}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .tensor_parallel = 0}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .tensor_parallel = 4, .context_parallel = 2}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .pipeline_parallel = 5}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .pipeline_parallel = 2, .expert_parallel = 4}.legal()));
  EXPECT_FALSE((RankGrid{.world = 12, .expert_tensor_parallel = 2, .expert_parallel = 4}.legal()));
  // tp x ep need not divide the stage: experts are laid out anew.
  EXPECT_TRUE((RankGrid{.world = 12, .tensor_parallel = 4, .expert_parallel = 6}.legal()));
}

TEST(RankGrid, HasNoGroupsAlongAxesOfBothLayouts) {
  EXPECT_THROW((RankGrid{.world = 4}.size({Axis::kTp, Axis::kEp})), std::logic_error);
  EXPECT_THROW((RankGrid{.world = 4, .tensor_parallel = 3}.color(Axis::kTp)), std::logic_error);
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
