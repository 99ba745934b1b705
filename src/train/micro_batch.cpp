#include "train/micro_batch.h"

#include "model/router_losses.h"

namespace mixtune {

namespace {

Tensor run_layers(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved, bool for_backward,
                  const BetweenLayers& before_layer) {
  Tensor h = model.embed(ctx, batch);
  const auto [begin, end] = model.all_layers();
  if (!before_layer) return model.layers(ctx, batch, {begin, end}, h, saved, for_backward);
  for (int64_t l = begin; l < end; ++l) {
    before_layer(l, h);
    h = model.layers(ctx, batch, {l, l + 1}, h, saved, for_backward);
  }
  before_layer(end, h);
  return h;
}

// layers_backward of all.
struct LayersBackward {
  Tensor dh;
  const RouterGradients& losses;
  const BetweenLayers& before_backward;
};
void run_layers_backward(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved, const LayersBackward& args) {
  const auto [begin, end] = model.all_layers();
  if (!args.before_backward) return model.layers_backward(ctx, batch, {begin, end}, args.dh, args.losses, saved);
  for (int64_t l = end - 1; l >= begin; --l) {
    args.before_backward(l, args.dh);
    model.layers_backward(ctx, batch, {l, l + 1}, args.dh, args.losses, saved);
  }
}

}  // namespace

void forward_backward(Ctx& ctx, const Mixtral& model, const Batch& host_batch, Saved& saved, const LossScales& scales,
                      const Tensor& losses) {
  scales.ranks->set_activity("forward");
  const Frame frame(ctx);
  backward_pass(ctx, model, forward_pass(ctx, model, host_batch, saved, true, scales.before_layer), saved, scales,
                losses);
}

ForwardPass forward_pass(Ctx& ctx, const Mixtral& model, const Batch& host_batch, Saved& saved, bool for_backward,
                         const BetweenLayers& before_layer) {
  const Batch batch = to_device(ctx, host_batch);
  model.begin_batch(ctx, batch, saved);
  return {batch, run_layers(ctx, model, batch, saved, for_backward, before_layer)};
}

void backward_pass(Ctx& ctx, const Mixtral& model, const ForwardPass& forward, Saved& saved, const LossScales& scales,
                   const Tensor& losses) {
  const auto& [batch, h] = forward;
  scales.ranks->data->all_reduce(ctx, "router statistics", saved.router_stats);
  const RouterGradients router = router_gradients(ctx, {.scales = scales.router,
                                                        .stats = saved.router_stats,
                                                        .tokens = batch.step_tokens,
                                                        .experts_per_token = model.config().num_experts_per_tok,
                                                        .counts = scales.router_counts,
                                                        .counted_tokens = scales.counted_tokens,
                                                        .sums = losses.slice(1, kRouterLossTypes)});
  scales.ranks->set_activity("backward");
  const Tensor dh = ctx.stack.push("residual gradient", h.shape, h.dtype);
  model.head_loss(ctx, batch,
                  {.h = h, .loss = losses.slice(0, 1), .dh = dh, .scale = scales.token_scale, .noise = saved.noise});
  run_layers_backward(ctx, model, batch, saved,
                      {.dh = dh, .losses = router, .before_backward = scales.before_backward});
  model.embed_backward(ctx, batch, dh);
}

void forward_loss(Ctx& ctx, const Mixtral& model, const Batch& host_batch, Saved& saved, const Tensor& token_sum) {
  const Frame frame(ctx);
  const auto [batch, h] = forward_pass(ctx, model, host_batch, saved, false);
  model.head_loss(ctx, batch, {.h = h, .loss = token_sum, .noise = saved.noise});
}

}  // namespace mixtune
