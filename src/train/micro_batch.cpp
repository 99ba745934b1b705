#include "train/micro_batch.h"

#include "kernels/moe/router_loss.h"

namespace mixtune {

void forward_backward(Ctx& ctx, const Mixtral& model, const Batch& host_batch, Saved& saved, const LossScales& scales,
                      const Tensor& losses) {
  scales.ranks->set_activity("forward");
  const Frame frame(ctx);
  backward_pass(ctx, model, forward_pass(ctx, model, host_batch, saved, true), saved, scales, losses);
}

ForwardPass forward_pass(Ctx& ctx, const Mixtral& model, const Batch& host_batch, Saved& saved, bool for_backward) {
  const Batch batch = to_device(ctx, host_batch);
  model.begin_batch(ctx, batch, saved);
  return {batch, model.layers(ctx, batch, model.all_layers(), model.embed(ctx, batch), saved, for_backward)};
}

void backward_pass(Ctx& ctx, const Mixtral& model, const ForwardPass& forward, Saved& saved, const LossScales& scales,
                   const Tensor& losses) {
  const auto& [batch, h] = forward;
  const Tensor prob_grad =
      ctx.stack.push("router loss gradient", {saved.router_stats.shape[0], saved.router_stats.shape[2]}, DType::kF64);
  scales.ranks->data->all_reduce(ctx, "router statistics", saved.router_stats);
  if (scales.router_stats) copy(ctx, saved.router_stats, scales.router_stats);
  router_loss(ctx, {.type = scales.router_loss_type,
                    .stats = saved.router_stats,
                    .tokens = batch.step_tokens,
                    .scale = scales.router_scale,
                    .prob_grad = prob_grad,
                    .loss = losses.slice(1, 1)});
  scales.ranks->set_activity("backward");
  const Tensor dh = ctx.stack.push("residual gradient", h.shape, h.dtype);
  model.head_loss(ctx, batch, {.h = h, .loss = losses.slice(0, 1), .dh = dh, .scale = scales.token_scale});
  model.layers_backward(ctx, batch, model.all_layers(), dh, scales.router_scale != 0 ? prob_grad : Tensor{}, saved);
  model.embed_backward(ctx, batch, dh);
}

void forward_loss(Ctx& ctx, const Mixtral& model, const Batch& host_batch, Saved& saved, const Tensor& token_sum) {
  const Frame frame(ctx);
  const auto [batch, h] = forward_pass(ctx, model, host_batch, saved, false);
  model.head_loss(ctx, batch, {.h = h, .loss = token_sum});
}

}  // namespace mixtune
