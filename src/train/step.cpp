#include "train/step.h"

#include "model/router_loss.h"

namespace mixtune {

MicroBatchLoss forward_backward(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved,
                                const LossScales& scales) {
  const Stack::Frame frame(ctx.stack);
  const Tensor h = model.layers(ctx, batch, model.all_layers(), model.embed(ctx, batch, saved), saved, true);
  MicroBatchLoss loss;

  const Tensor prob_grad =
      ctx.stack.push("router loss gradient", {saved.router_stats.shape[0], saved.router_stats.shape[2]}, DType::kF64);
  loss.router = router_loss({.type = scales.router_loss_type,
                             .stats = saved.router_stats,
                             .tokens = batch.live_tokens,
                             .scale = scales.router_scale,
                             .prob_grad = prob_grad});
  const Tensor dh = ctx.stack.push("residual gradient", h.shape, h.dtype);
  loss.token_sum = model.head_loss(ctx, batch, {.h = h, .dh = dh, .scale = scales.token_scale});
  model.layers_backward(ctx, batch, model.all_layers(), dh, scales.router_scale != 0 ? prob_grad : Tensor{}, saved);
  model.embed_backward(ctx, batch, dh);
  return loss;
}

double forward_loss(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved) {
  const Stack::Frame frame(ctx.stack);
  const Tensor h = model.layers(ctx, batch, model.all_layers(), model.embed(ctx, batch, saved), saved, false);
  return model.head_loss(ctx, batch, {.h = h});
}

}  // namespace mixtune
