#include "model/router.h"

#include "kernels/moe/router.h"
#include "kernels/moe/router_own_loss.h"

namespace mixtune {

void Router::forward(Ctx& ctx, const Forward& args) const {
  router_logits(ctx, args.x, args.weight, args.logits);
  router_forward(ctx, {.logits = args.logits,
                       .live = args.live,
                       .experts = args.routing.experts,
                       .weights = args.routing.weights,
                       .stats = args.stats,
                       .forced = args.forced,
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
  router_logits_backward(ctx, {.x = args.x,
                               .weight = args.weight,
                               .dlogits = dlogits,
                               .dx = args.dx,
                               .dweight = args.dweight.tensor,
                               .accumulate = args.dweight.accumulate});
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
  if (const auto scale = args.losses.scales[RouterLossType::kSequence])
    router_sequence_loss(ctx, {.logits = args.logits,
                               .experts = args.routing.experts,
                               .doc_offsets = args.batch.doc_offsets,
                               .live = args.batch.live_tokens,
                               .scale = *scale,
                               .dlogits = dlogits,
                               .loss = sum(RouterLossType::kSequence),
                               .scoring = scores_.scoring});
}

}  // namespace mixtune
