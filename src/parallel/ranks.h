// Ranks: this process's place among those of a job, and the groups in which it talks to them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/rank_grid.h"
#include "parallel/rank_progress.h"
#include "parallel/traffic.h"

namespace mixtune {

// What NCCL took of each of two GPUs (measured: H200, NCCL 2.28); with more GPUs it takes more.
constexpr size_t kNcclBytes = size_t{2150} << 20;

// What ranks compare: each entry under its name for messages.
using Entries = std::map<std::string, std::string>;

struct DoNothing {
  void operator()(const auto&) const {}
};

// Groups are named by their purpose. Every one is there, perhaps with one rank. Groups of the same ranks along the same
// axes are one communicator.
struct Ranks {
  RankGrid grid;
  std::optional<Device> device;                   // the job's choice for this rank; none: this rank's own
  std::unique_ptr<Traffic> traffic;               // of all groups; none where there is one rank
  std::shared_ptr<Communicator> all;              // for barriers, texts and reports
  std::shared_ptr<Communicator> data;             // cp x dp, other tokens: sums of losses and of router statistics
  std::shared_ptr<Communicator> dense;            // cp x dp, copies of the dense parameters: sums of their gradients
  std::shared_ptr<Communicator> experts;          // edp, copies of the same experts: sums of their gradients
  std::shared_ptr<Communicator> expert_parallel;  // ep, who together hold all experts: exchange of tokens
  RankProgress* progress = &unwatched();          // who is told where this rank is; never null
  std::function<void(const Entries&)> compare = DoNothing{};  // Job::compare, where there is a job
  size_t gpu_bytes = 0;                                       // bytes of this rank's GPU that its connections take
  // Where operations go on beside the host: how long it may wait for them, and what then ends the process or lets it
  // wait on (GpuOptions).
  double patience = 0;
  std::function<void(const std::string& message)> give_up = DoNothing{};

  void set_step(int64_t step) const { progress->set_step(step); }
  void set_activity(const char* activity) const { progress->set_activity(activity); }
  void advance() const { progress->advance(); }
};

// Splits off `all` the groups of this rank's place in the grid. All ranks call this; each gives its own place.
Ranks make_ranks(std::unique_ptr<Communicator> all, const RankGrid& grid);

// Returns when all ranks of the group have called it, and this rank's work before it is done.
void barrier(Ctx& ctx, Communicator& ranks, const char* what);

// Every rank's text, in the order of ranks. All ranks of the group call this; it waits for all of them.
std::vector<std::string> gather_texts(Ctx& ctx, Communicator& ranks, const char* what, const std::string& text);

// This process alone, unwatched: for callers without ranks. It lives as long as the process.
const Ranks& single_rank();

// A rank of the grid that talks to nobody, for plans of memory (DeviceType::kMeta).
Ranks planned_ranks(const RankGrid& grid, size_t gpu_bytes = kNcclBytes);

}  // namespace mixtune
