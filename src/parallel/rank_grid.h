// RankGrid: which rank does what (docs/design.md, section 5). A value: no process, no device.
#pragma once

#include <cstdint>
#include <string>

namespace mixtune {

// Ranks in the order tp-cp-ep-dp-pp. Today tp = cp = pp = 1: every rank trains on its own data (dp = world), groups of
// `ep` neighbours share the experts, and ranks of the same place in their group hold the same ones (edp = world / ep).
struct RankGrid {
  int world = 1, rank = 0;
  int expert_parallel = 1;  // ep; divides world

  int data_parallel() const { return world; }                           // dp
  int expert_data_parallel() const { return world / expert_parallel; }  // edp
  int ep_rank() const { return rank % expert_parallel; }
  int edp_rank() const { return rank / expert_parallel; }
  // Colors for Communicator::split.
  int ep_color() const { return edp_rank(); }
  int edp_color() const { return ep_rank(); }

  // The experts of this rank: [first, first + count).
  struct Experts {
    int64_t first, count;
  };
  Experts experts(int64_t experts) const;

  // "8 ranks: ep 4 x edp 2"
  std::string str() const;
};

// Throws UserError, which shows the arithmetic, where ep does not divide the world or the experts. `where`: the key.
RankGrid make_rank_grid(int world, int rank, int expert_parallel, int64_t experts, const std::string& where);

}  // namespace mixtune
