#include "model/router_losses.h"

#include "kernels/moe/router_loss.h"

namespace mixtune {

RouterGradients router_gradients(Ctx& ctx, const RouterLossInputs& args) {
  RouterGradients gradients = {.probabilities = {}, .scales = args.scales, .sums = args.sums};
  const Tensor probabilities =
      ctx.stack.push("router loss gradient", {args.stats.shape[0], args.stats.shape[2]}, DType::kF64);
  bool accumulate = false;
  for (const RouterLossType type : {RouterLossType::kHuggingface, RouterLossType::kSwitch, RouterLossType::kGlobal}) {
    if (!args.scales[type]) continue;
    router_loss(ctx, {.type = type,
                      .stats = args.stats,
                      .tokens = args.tokens,
                      .scale = *args.scales[type],
                      .prob_grad = probabilities,
                      .loss = args.sums.slice(static_cast<int64_t>(type), 1),
                      .accumulate = accumulate,
                      .experts_per_token = args.experts_per_token,
                      .counts = args.counts,
                      .counted_tokens = args.counted_tokens});
    accumulate = true;
    if (args.scales.is_trained(type)) gradients.probabilities = probabilities;
  }
  return gradients;
}

}  // namespace mixtune
