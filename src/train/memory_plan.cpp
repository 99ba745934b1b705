#include "train/memory_plan.h"

#include <algorithm>

#include "data/random_batch.h"
#include "train/step.h"

namespace mixtune {

namespace {

// Runs a step on kMeta and leaves its marks in `saved`.
size_t count_activations(Instance& instance, const BatchLimits& limits, Saved& saved) {
  Ctx& ctx = instance.ctx();
  const RandomBatch random(limits.tokens, limits.longest_document, instance.model().config().vocab_size, 0,
                           HostMemory::kPageable);
  const Tensor losses = ctx.stack.push("losses", {2}, DType::kF64);
  instance.state().begin_step();
  forward_backward(ctx, instance.model(), random.batch(), saved, {.router_scale = 1}, losses);
  return ctx.stack.peak();
}

}  // namespace

size_t MemoryPlan::total() const {
  size_t bytes = activations + libraries + connections;
  for (const Part& part : state) bytes += part.bytes;
  return bytes;
}

MemoryPlan plan_memory(const MixtralConfig& config, InstanceOptions options, const BatchLimits& limits,
                       bool worst_case) {
  const Ranks ranks =
      options.ranks ? planned_ranks(options.ranks->grid, options.ranks->gpu_bytes) : planned_ranks(RankGrid{});
  options.device = {DeviceType::kMeta};
  options.ranks = &ranks;
  options.purpose = State::Purpose::kTraining;
  options.stack_bytes = 0;
  MemoryPlan plan;
  plan.libraries = kGpuLibraryBytes;
  plan.connections = ranks.gpu_bytes;
  {
    Instance instance(config, options);
    instance.ctx().worst_case_routing = worst_case;
    for (const auto& arena : instance.state().arenas()) plan.state.push_back({arena->name(), arena->used()});
    Saved saved = instance.model().make_saved();
    plan.activations = count_activations(instance, limits, saved);
  }
  options.recompute = std::max(options.recompute, Recompute::kSelective);
  Instance dropping(config, options);
  dropping.ctx().worst_case_routing = true;
  Saved saved = dropping.model().make_saved();
  const size_t peak = count_activations(dropping, limits, saved);
  for (const LayerSaved& layer : saved.layers) plan.still_needed.push_back(peak - layer.mark);
  return plan;
}

}  // namespace mixtune
