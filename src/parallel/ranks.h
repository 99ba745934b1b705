// Ranks: the place of this process among those of a job, and the groups in which it talks to them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/rank_grid.h"
#include "parallel/rank_progress.h"
#include "parallel/traffic.h"

namespace mixtune {

// What NCCL took of each of two GPUs (measured: H200, NCCL 2.28); of more it takes more.
constexpr size_t kNcclBytes = size_t{2150} << 20;

// What ranks compare, by its name in messages.
using Entries = std::map<std::string, std::string>;

struct Ranks {
  RankGrid grid;
  Device device;                                     // of this one
  std::unique_ptr<Traffic> traffic;                  // of all three groups; none where there is one rank
  std::unique_ptr<Communicator> world;               // every rank: each has its own data and all dense parameters
  std::unique_ptr<Communicator> expert;              // ep: together they hold all experts
  std::unique_ptr<Communicator> expert_replica;      // edp: they hold the same experts
  RankProgress* progress = nullptr;                  // who is told where this rank is; perhaps nobody
  std::function<void(const Entries&)> compare = {};  // Job::compare; none where there is no job
  size_t gpu_bytes = 0;                              // what talking to the others takes of this rank's GPU
  // Where operations go on beside the host: for how long it may wait for them, and what ends the process then
  // or lets it wait on (GpuOptions).
  double patience = 0;
  std::function<void(const std::string& message)> give_up = {};

  void set_step(int64_t step) const {
    if (progress) progress->set_step(step);
  }
  void set_activity(const char* activity) const {
    if (progress) progress->set_activity(activity);
  }
  void advance() const {
    if (progress) progress->advance();
  }
};

// All ranks of `world` call this; each gives its own place in the grid.
Ranks make_ranks(std::unique_ptr<Communicator> world, const RankGrid& grid);

// Every rank's text, in the order of ranks. All ranks of the group call this; it waits for all of them.
std::vector<std::string> gather_texts(Ctx& ctx, Communicator& ranks, const char* what, const std::string& text);

// This process alone.
Ranks single_rank();

// A rank of the grid that talks to nobody, for plans of memory (DeviceType::kMeta).
Ranks planned_ranks(const RankGrid& grid, size_t gpu_bytes = kNcclBytes);

}  // namespace mixtune
