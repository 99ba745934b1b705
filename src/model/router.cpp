#include "model/router.h"

#include "kernels/moe/router.h"
#include "kernels/moe/router_noise.h"
#include "kernels/moe/router_own_loss.h"
#include "kernels/moe/sinkhorn.h"
#include "model/draws.h"

namespace mixtune {

void Router::forward(Ctx& ctx, const Forward& args) const {
  const Stack::Frame frame(ctx.stack);
  const int64_t live = args.batch.live_tokens, first_token = args.batch.first_token;
  const Tensor x = jittered(ctx, {args.x, args.noise, first_token});
  router_logits(ctx, x, args.weight, args.logits);
  add_router_adapter(ctx, args.adapter, {.x = x, .y = args.logits});
  const bool draws = args.noise && noise_.draws_experts && !args.forced;
  if (draws)
    draw_experts(ctx, {.experts = args.routing.experts,
                       .all_experts = args.logits.shape[1],
                       .live = live,
                       .key = draw_key(*args.noise, Draw::kExperts),
                       .first_token = first_token});
  router_forward(ctx, {.logits = args.logits,
                       .live = live,
                       .experts = args.routing.experts,
                       .weights = args.routing.weights,
                       .stats = args.stats,
                       .forced = args.forced || draws,
                       .scores = scores_,
                       .bias = has_bias() ? bias_.row(args.layer) : Tensor{},
                       .offsets = offsets(ctx, args)});
  if (!args.loss_stats) return;
  const Tensor experts = ctx.stack.push("unbiased experts", args.routing.experts.shape, DType::kI32);
  choose_unbiased(ctx, {.logits = args.logits, .experts = experts, .stats = args.loss_stats, .live = live});
}

Tensor Router::offsets(Ctx& ctx, const Forward& args) const {
  if (!sinkhorn_ || !args.noise || args.forced) return {};
  const Tensor offsets = ctx.stack.push("sinkhorn offsets", {args.logits.shape[1]}, args.logits.dtype);
  sinkhorn(ctx, {.logits = args.logits, .live = args.batch.live_tokens, .offsets = offsets});
  return offsets;
}

Tensor Router::jittered(Ctx& ctx, const Jittered& args) const {
  if (!jitters(args.noise)) return args.x;
  const Tensor y = ctx.stack.push("jittered input", args.x.shape, args.x.dtype);
  router_jitter(ctx, {.x = args.x,
                      .y = y,
                      .key = draw_key(*args.noise, Draw::kJitter),
                      .first_token = args.first_token,
                      .eps = noise_.jitter});
  return y;
}

void Router::choose_unbiased(Ctx& ctx, const Unbiased& args) const {
  const Stack::Frame frame(ctx.stack);
  router_forward(ctx, {.logits = args.logits,
                       .live = args.live,
                       .experts = args.experts,
                       .weights = ctx.stack.push("unbiased weights", args.experts.shape, args.logits.dtype),
                       .stats = args.stats,
                       .scores = scores_});
}

void Router::backward(Ctx& ctx, const Backward& args) const {
  const Stack::Frame frame(ctx.stack);
  const Tensor dlogits = ctx.stack.push("router logits gradient", args.logits.shape, args.logits.dtype);
  const Tensor& of_all = args.losses.probabilities;
  router_backward(ctx, {.logits = args.logits,
                        .experts = args.routing.experts,
                        .weights = args.routing.weights,
                        .dweights = args.dweights,
                        .prob_grad = of_all ? of_all.row(args.layer) : Tensor{},
                        .live = args.batch.live_tokens,
                        .dlogits = dlogits,
                        .scores = scores_});
  add_own_losses(ctx, args, dlogits);
  logits_backward(ctx, args, dlogits);
}

void Router::logits_backward(Ctx& ctx, const Backward& args, const Tensor& dlogits) const {
  const Stack::Frame frame(ctx.stack);
  Tensor dx = args.dx;
  if (jitters(args.noise)) {
    dx = ctx.stack.push("jittered input gradient", dx.shape, dx.dtype);
    zero(ctx, dx);
  }
  const Tensor x = jittered(ctx, {args.x, args.noise, args.batch.first_token});
  router_logits_backward(ctx, {.x = x,
                               .weight = args.weight,
                               .dlogits = dlogits,
                               .dx = dx,
                               .dweight = args.dweight.tensor,
                               .accumulate = args.dweight.accumulate});
  router_adapter_backward(ctx, args.adapter, {.x = x, .dy = dlogits, .dx = dx});
  if (jitters(args.noise))
    router_jitter(ctx, {.x = dx,
                        .y = args.dx,
                        .key = draw_key(*args.noise, Draw::kJitter),
                        .first_token = args.batch.first_token,
                        .eps = noise_.jitter,
                        .accumulate = true});
}

void Router::add_own_losses(Ctx& ctx, const Backward& args, const Tensor& dlogits) const {
  const auto sum = [&](RouterLossType type) {
    return args.losses.sums.slice(static_cast<int64_t>(type), 1);
  };
  if (const auto scale = args.losses.scales[RouterLossType::kZ])
    router_z_loss(ctx, {.logits = args.logits,
                        .live = args.batch.live_tokens,
                        .scale = *scale,
                        .dlogits = dlogits,
                        .loss = sum(RouterLossType::kZ)});
  const auto scale = args.losses.scales[RouterLossType::kSequence];
  if (!scale) return;
  const Stack::Frame frame(ctx.stack);
  Tensor experts = args.routing.experts;
  if (has_bias()) {
    experts = ctx.stack.push("unbiased experts", experts.shape, experts.dtype);
    choose_unbiased(ctx, {.logits = args.logits,
                          .experts = experts,
                          .stats = ctx.stack.push("unbiased stats", {2, args.logits.shape[1]}, DType::kF64),
                          .live = args.batch.live_tokens});
  }
  router_sequence_loss(ctx, {.logits = args.logits,
                             .experts = experts,
                             .doc_offsets = args.batch.doc_offsets,
                             .live = args.batch.live_tokens,
                             .scale = *scale,
                             .dlogits = dlogits,
                             .loss = sum(RouterLossType::kSequence),
                             .scoring = scores_.scoring});
}

}  // namespace mixtune
