// Instance: a model with everything it stands on: device, weights, recipe, dispatcher, activation stacks.
#pragma once

#include <memory>

#include "data/loader.h"
#include "model/expert_bias.h"
#include "model/mixtral.h"
#include "parallel/ranks.h"

namespace mixtune {

// The memory of a GPU that is left to libraries, for what they allocate and load, and to mixtune's own workspaces.
constexpr size_t kGpuLibraryBytes = size_t{1} << 30;

struct InstanceOptions {
  Device device;
  StateTypes types;
  State::Purpose purpose = State::Purpose::kInference;
  Recompute recompute = Recompute::kNone;
  RecipeOptions recipe;
  GpuOptions gpu;
  size_t stack_bytes = 0;               // of activations; 0: what the device has left beside State
  const Ranks* ranks = &single_rank();  // never null; outlive the instance
  int zero_stage = 1;                   // 1: each rank keeps a piece of the optimizer's state
  Freeze freeze = {};
  Lora lora = {};
  Capacity capacity = {};
  RouterNoise router_noise = {};
  CacheRoom cache = {};      // of sequences that batches go on with
  bool sinkhorn = false;     // Router::Options
  bool cuda_graphs = false;  // of each micro-batch's forward and backward; wants one rank, and a capacity padded to
};

class Instance {
 public:
  // Weights are zero until they are loaded or initialised.
  Instance(const MixtralConfig& config, const InstanceOptions& options);

  State& state() { return state_; }
  const State& state() const { return state_; }
  const Mixtral& model() const { return model_; }
  Mixtral& model() { return model_; }
  Ctx& ctx() { return ctx_; }
  const Ranks& ranks() const { return *options_.ranks; }
  // This rank's share of every batch.
  Share share() const { return {ranks().grid.position(Axis::kDp), ranks().grid.size(Axis::kDp)}; }
  const InstanceOptions& options() const { return options_; }
  size_t stack_bytes() const { return stack_.capacity(); }
  // Of the model's configuration; on the device as it is at the last upload().
  ExpertBias& expert_bias() { return expert_bias_; }
  // What the recipe keeps beside the state, as long as the instance lives.
  size_t recipe_bytes() const { return recipe_->kept_bytes(); }
  // Recipe::watch.
  void watch(const Tensor& tally) { recipe_->watch(tally); }
  // The kind of host memory that the device is to copy from.
  HostMemory host_memory() const { return gpu_ ? HostMemory::kPinned : HostMemory::kPageable; }

 private:
  Instance(const MixtralConfig& config, ModelLayout layout, const InstanceOptions& options);

  InstanceOptions options_;
  std::shared_ptr<Gpu> gpu_;
  State state_;
  std::unique_ptr<Recipe> recipe_;
  std::unique_ptr<Dispatcher> dispatcher_;
  ExpertBias expert_bias_;
  KvCache cache_;
  Mixtral model_;
  Stack stack_;
  std::unique_ptr<Stack> host_stack_;
  Ctx ctx_;
};

}  // namespace mixtune
