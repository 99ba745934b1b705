// How much memory a run will need: counted by the run's own code on a device that has none (DeviceType::kMeta).
#pragma once

#include "kernels/warm_up.h"
#include "model/instance.h"

namespace mixtune {

struct MemoryPlan {
  struct Part {
    std::string name;
    size_t bytes;
  };
  std::vector<Part> state;           // weights, master weights, gradients, moments
  size_t activations = 0;            // the stack's peak over a training step
  size_t libraries = 0;              // workspaces and what libraries take for themselves
  size_t connections = 0;            // of several ranks
  std::vector<size_t> still_needed;  // after each layer, with its and all later gate-up outputs dropped

  size_t total() const;
};

// Of a training step over a micro-batch of the limits. worst_case: every expert's last rows leave the largest gap.
MemoryPlan plan_memory(const MixtralConfig& config, InstanceOptions options, const BatchLimits& limits,
                       bool worst_case);

}  // namespace mixtune
