#include "train/warm_up.h"

#include <algorithm>
#include <string>

#include "base/log.h"
#include "data/random_batch.h"
#include "train/memory_plan.h"
#include "train/scalars.h"
#include "train/shared_plans.h"
#include "train/step.h"

namespace mixtune {

namespace {

// Where memory is too short for some routing: says for which, of the rank that has the least. All ranks call this.
void say_which_routing_fits(Instance& instance, const BatchLimits& limits, const MemoryPlan& worst) {
  const Ranks& ranks = instance.ranks();
  if (ranks.grid.expert_parallel == 1) return;
  const size_t there = instance.stack_bytes();
  double share = worst.least_activations <= there
                     ? kWorstRouting
                     : share_that_fits(instance.model().config(), instance.options(), limits, there);
  for (const std::string& text :
       gather_texts(instance.ctx(), *ranks.world, "share of tokens that fits", fmt::format("{}", share)))
    share = std::min(share, std::stod(text));
  if (ranks.grid.rank == 0 && share >= kEvenRouting && share < kWorstRouting)
    log_warning("memory runs out where {}; 'mixtune estimate' shows what would fit any routing", describe_share(share));
}

}  // namespace

std::string warm_up(Instance& instance, BatchLimits limits) {
  Ctx& ctx = instance.ctx();
  limits.expert_ranks = instance.ranks().grid.expert_parallel;
  if (!ctx.on_gpu()) return "";
  const bool by_rule = instance.options().gpu.deterministic;
  log_info("warming up{}", by_rule ? "" : ": what is the fastest on this GPU is measured once, and kept");
  const MixtralConfig& config = instance.model().config();
  const RandomBatch random(limits.tokens, limits.longest_document, config.vocab_size, 0, instance.host_memory());
  begin_warm_up(ctx, instance.model().attention_shape(random.batch()), instance.state().dtype(), limits);
  SharedPlans plans(instance);
  Scalars losses(ctx, "warm-up losses", 2);
  Saved saved = instance.model().make_saved();
  if (instance.state().is_training()) {
    const MemoryPlan worst = plan_memory(config, instance.options(), limits, kWorstRouting);
    instance.model().set_still_needed(worst.still_needed);
    say_which_routing_fits(instance, limits, worst);
    instance.state().begin_step();
    for (int64_t i = 0; i < std::min<int64_t>(limits.micro_batches, 2); ++i)  // write gradients, and add to them
      forward_backward(ctx, instance.model(), random.batch(), saved, {.router_scale = 1, .ranks = &instance.ranks()},
                       losses.slice(0, 2));
    instance.state().reduce_gradients(ctx);
    instance.state().gather_weights();
    instance.state().await_weights(ctx);
  } else {
    forward_loss(ctx, instance.model(), random.batch(), saved, losses.slice(0));
  }
  losses.read(ctx);
  const std::string digest = plans.finish();
  finish_warm_up(ctx);
  log_info("matrix products: algorithms {} ({})", digest, by_rule ? "by rule" : "measured");
  return digest;
}

}  // namespace mixtune
