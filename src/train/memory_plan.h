// MemoryPlan: the memory a run needs, counted by its own code on a device that has none (DeviceType::kMeta).
#pragma once

#include "config/router_losses.h"
#include "kernels/warm_up.h"
#include "model/instance.h"

namespace mixtune {

struct MemoryPlan {
  struct Part {
    std::string name;
    size_t bytes;
  };
  std::vector<Part> state;           // weights, master weights, gradients, moments; what the recipe keeps
  size_t activations = 0;            // the stack's peak over a training step that keeps all it is to keep
  size_t least_activations = 0;      // the peak where every layer drops what it can (Mixtral::set_still_needed)
  size_t libraries = 0;              // workspaces and what libraries take for themselves
  size_t connections = 0;            // those of several ranks
  std::vector<size_t> still_needed;  // for Mixtral::set_still_needed

  size_t total() const { return without_activations() + activations; }
  size_t least() const { return without_activations() + least_activations; }

 private:
  size_t without_activations() const;
};

// Those of the router's losses that take the most memory, whatever their coefficients.
inline RouterLosses heaviest_router_losses() {
  RouterLosses losses(RouterLossType::kHuggingface, 1);
  losses[RouterLossType::kZ] = losses[RouterLossType::kSequence] = 1;
  return losses;
}

// The plan of a training step over a micro-batch of the limits. `share`: the rows that come to this rank in every
// layer, in units of an even share (Ctx::routing_share).
MemoryPlan plan_memory(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits,
                       double share);

// The largest share for which a stack of `bytes` is enough, also to evaluate, found to within a hundredth.
// kWorstRouting: enough for any share; 0: not even for an even one.
double share_that_fits(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits,
                       size_t bytes);

// The share for which layers leave room when they keep something of their experts: half-way from an even one to `fits`,
// the share that fits; all where all fits. To leave room up to `fits` would keep nothing, and have rows sent again in
// every layer of every step, however even the routing is; to leave none would end the run by the first uneven layer.
// Above the reserved share memory may run out, above `fits` it does.
double reserved_share(double fits);

// What a run on a stack of `bytes` leaves room for. Where no other rank has experts, `fits` is the worst share.
struct Reserve {
  double fits = kWorstRouting;       // share_that_fits
  std::vector<size_t> still_needed;  // for Mixtral::set_still_needed, with the share that is reserved
};
Reserve plan_reserve(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits,
                     size_t bytes);

// "routing sends a rank more than 3.2 times its even share of tokens"
std::string describe_share(double share);

}  // namespace mixtune
