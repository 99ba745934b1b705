#include "train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "data/random_batch.h"
#include "train/micro_batch.h"
#include "train/operand_report.h"

namespace mixtune {

namespace {

// A training step on an instance without memory; in 8 bits one that looks at its operands, as some of a run do.
class Planner {
 public:
  Planner(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits)
      : ranks_(planned_ranks(options.ranks->grid, options.ranks->gpu_bytes)),
        instance_(config, on_meta(options, ranks_)),
        batch_({.tokens = limits.tokens,
                .document_tokens = limits.longest_document,
                .vocab_size = config.vocab_size,
                .weighted = limits.weighted},
               0, HostMemory::kPageable),
        saved_(instance_.model().make_saved()) {
    saved_.noise = 0;
    if (options.recipe.eight_bit) operands_.emplace(instance_);
  }

  const State& state() const { return instance_.state(); }
  size_t recipe_bytes() const { return instance_.recipe_bytes(); }
  size_t connections() const { return ranks_.gpu_bytes; }

  // Runs the step. Returns the stack's peak.
  size_t count(double share, bool drop) {
    const Ctx& ctx = instance_.ctx();
    Stack stack("activations", ctx.device, ctx.stack.capacity());
    Ctx counting{ctx.device, stack, ctx.host_stack};
    counting.routing_share = share;
    instance_.model().set_still_needed(drop ? std::vector<size_t>(saved_.layers.size(), stack.capacity())
                                            : std::vector<size_t>());
    const Tensor losses = stack.push("losses", {kLosses}, DType::kF64);
    instance_.state().gradients().begin_step();
    if (operands_) operands_->begin();
    forward_backward(counting, instance_.model(), batch_.batch(), saved_, {.router = heaviest_router_losses()}, losses);
    return stack.peak();
  }

  // The stack's peak over an evaluation, in which no expert has a capacity.
  size_t count_evaluation(double share) {
    const Ctx& ctx = instance_.ctx();
    Stack stack("activations", ctx.device, ctx.stack.capacity());
    Ctx counting{ctx.device, stack, ctx.host_stack};
    counting.routing_share = share;
    Saved saved = instance_.model().make_saved();
    forward_loss(counting, instance_.model(), batch_.batch(), saved, stack.push("loss", {1}, DType::kF64));
    return stack.peak();
  }

  // The bytes on the stack when each layer of the last step had kept nothing of its experts.
  std::vector<size_t> marks() const {
    std::vector<size_t> marks;
    for (const LayerSaved& layer : saved_.layers) marks.push_back(layer.mark);
    return marks;
  }

 private:
  static InstanceOptions on_meta(InstanceOptions options, const Ranks& ranks) {
    options.device = {DeviceType::kMeta};
    options.ranks = &ranks;
    options.purpose = State::Purpose::kTraining;
    options.stack_bytes = 0;
    return options;
  }

  Ranks ranks_;
  Instance instance_;
  RandomBatch batch_;
  Saved saved_;
  std::optional<OperandReport> operands_;
};

}  // namespace

size_t MemoryPlan::without_activations() const {
  size_t bytes = libraries + connections;
  for (const Part& part : state) bytes += part.bytes;
  return bytes;
}

MemoryPlan plan_memory(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits,
                       double share) {
  Planner planner(config, options, limits);
  MemoryPlan plan;
  plan.libraries = kGpuLibraryBytes;
  plan.connections = planner.connections();
  for (const auto& arena : planner.state().arenas()) plan.state.push_back({arena->name(), arena->used()});
  if (const size_t bytes = planner.recipe_bytes(); bytes > 0) plan.state.push_back({"weights in 8 bits", bytes});
  plan.activations = planner.count(share, false);
  plan.least_activations = planner.count(share, true);
  for (const size_t mark : planner.marks()) plan.still_needed.push_back(plan.least_activations - mark);
  return plan;
}

double share_that_fits(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits,
                       size_t bytes) {
  Planner planner(config, options, limits);
  const auto fits = [&](double share) {
    return planner.count(share, true) <= bytes &&
           (!options.capacity.factor || planner.count_evaluation(share) <= bytes);
  };
  if (fits(kWorstRouting)) return kWorstRouting;
  if (!fits(kEvenRouting)) return 0;
  // No share exceeds all rows of the ranks that share experts.
  double low = kEvenRouting, high = options.ranks->grid.expert_parallel;
  while (high - low > 0.01) (fits((low + high) / 2) ? low : high) = (low + high) / 2;
  return low;
}

double reserved_share(double fits) {
  return (kEvenRouting + std::max(fits, kEvenRouting)) / 2;
}

Reserve plan_reserve(const MixtralConfig& config, const InstanceOptions& options, const BatchLimits& limits,
                     size_t bytes) {
  Reserve reserve;
  if (options.ranks->grid.expert_parallel > 1) reserve.fits = share_that_fits(config, options, limits, bytes);
  reserve.still_needed = plan_memory(config, options, limits, reserved_share(reserve.fits)).still_needed;
  return reserve;
}

std::string describe_share(double share) {
  return fmt::format("routing sends a rank more than {:.1f} times its even share of tokens",
                     std::floor(10 * share) / 10);
}

}  // namespace mixtune
