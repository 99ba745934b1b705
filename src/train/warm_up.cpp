#include "train/warm_up.h"

#include <algorithm>
#include <string>

#include "base/log.h"
#include "data/random_batch.h"
#include "train/memory_plan.h"
#include "train/micro_batch.h"
#include "train/scalars.h"
#include "train/shared_plans.h"

namespace mixtune {

namespace {

// Has layers leave room for what follows. Where that is too little for some routing, warns of the share that the rank
// with the least memory can take. All ranks call this.
void leave_room(Instance& instance, const BatchLimits& limits) {
  const Ranks& ranks = instance.ranks();
  const Reserve reserve = plan_reserve(instance.model().config(), instance.options(), limits, instance.stack_bytes());
  instance.model().set_still_needed(reserve.still_needed);
  if (ranks.grid.expert_parallel == 1) return;
  double fits = reserve.fits;
  for (const std::string& text :
       gather_texts(instance.ctx(), *ranks.all, "share of tokens that fits", fmt::format("{}", fits)))
    fits = std::min(fits, std::stod(text));
  if (ranks.grid.rank == 0 && fits >= kEvenRouting && fits < kWorstRouting)
    log_warning("memory may run out where {}; 'mixtune estimate' shows what would fit any routing",
                describe_share(reserved_share(fits)));
}

}  // namespace

std::string warm_up(Instance& instance, BatchLimits limits) {
  Ctx& ctx = instance.ctx();
  limits.expert_ranks = instance.ranks().grid.expert_parallel;
  if (!ctx.like_gpu()) return "";
  const bool by_rule = instance.options().gpu.deterministic;
  log_info("warming up{}", by_rule ? "" : ": what is the fastest on this GPU is measured once, and kept");
  const MixtralConfig& config = instance.model().config();
  const RandomBatch random({.tokens = limits.tokens,
                            .document_tokens = limits.longest_document,
                            .vocab_size = config.vocab_size,
                            .weighted = limits.weighted},
                           0, instance.host_memory());
  begin_warm_up(ctx, instance.model().attention_shape(random.batch()), instance.model().dtype(), limits);
  SharedPlans plans(instance);
  Scalars losses(ctx, "warm-up losses", kLosses);
  Saved saved = instance.model().make_saved();
  if (instance.state().is_training()) {
    leave_room(instance, limits);
    saved.noise = 0;
    instance.state().gradients().begin_step();
    for (int64_t i = 0; i < std::min<int64_t>(limits.micro_batches, 2); ++i)  // write gradients, and add to them
      forward_backward(ctx, instance.model(), random.batch(), saved,
                       {.router = heaviest_router_losses(), .ranks = &instance.ranks()}, losses.slice(0, kLosses));
    instance.state().gradients().finish(ctx);
    instance.state().weight_sync().begin();
    instance.state().weight_sync().await_all(ctx);
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
