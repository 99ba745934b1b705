// The two blocks of a decoder layer, forward and backward.
#include "kernels/rope.h"
#include "kernels/router.h"
#include "model/mixtral.h"

namespace mixtune {

// Writes the residual stream after attention to saved.middle, and its norm to `normed`.
void Mixtral::attention_forward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                                      LayerSaved& saved, const Tensor& normed) const {
  const int64_t tokens = saved.input.rows();
  saved.input_rstd = push(ctx, "input rstd", {tokens});
  saved.qkv = push(ctx, "qkv", {tokens, config_.qkv_size()});
  saved.attention = push(ctx, "attention output", {tokens, config_.query_size()});
  saved.lse = push(ctx, "attention log-sum-exp", {tokens, config_.num_attention_heads});
  saved.middle = push(ctx, "residual after attention", saved.input.shape);
  saved.middle_rstd = push(ctx, "residual rstd", {tokens});

  const Stack::Frame frame(ctx.stack);
  const Tensor projected = push(ctx, "attention projection", saved.input.shape);
  rms_norm_forward(ctx, {.x = saved.input,
                         .weight = *WeightUse(state_, p.input_norm),
                         .eps = config_.rms_norm_eps,
                         .y = normed,
                         .rstd = saved.input_rstd});
  linear(ctx, p.qkv, normed, saved.qkv);
  rope(ctx, {.qkv = saved.qkv,
             .table = rope_table,
             .q_heads = config_.num_attention_heads,
             .kv_heads = config_.num_key_value_heads});
  attention_forward(ctx, attention_shape(batch), saved.qkv, saved.attention, saved.lse);
  linear(ctx, p.attention_out, saved.attention, projected);
  rms_norm_forward(ctx, {.x = saved.input,
                         .delta = projected,
                         .weight = *WeightUse(state_, p.post_norm),
                         .eps = config_.rms_norm_eps,
                         .r = saved.middle,
                         .y = normed,
                         .rstd = saved.middle_rstd});
}

// Reads the block's input from `normed` and leaves the layer's output there.
void Mixtral::expert_forward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& stats,
                                   LayerSaved& saved, const Tensor& normed) const {
  const int64_t tokens = normed.rows(), k = config_.num_experts_per_tok;
  saved.router_logits = push(ctx, "router logits", {tokens, config_.num_local_experts});
  saved.routing.experts = ctx.stack.push("chosen experts", {tokens, k}, DType::kI32);
  saved.routing.weights = push(ctx, "routing weights", {tokens, k});
  linear(ctx, p.router, normed, saved.router_logits);
  router_forward(ctx, {.logits = saved.router_logits,
                       .live = batch.live_tokens,
                       .experts = saved.routing.experts,
                       .weights = saved.routing.weights,
                       .stats = stats});
  saved.dispatch = dispatcher_.plan(ctx, saved.routing);
  saved.gate_up = push(ctx, "gate-up output", {saved.dispatch.rows, 2 * config_.intermediate_size});

  const Stack::Frame frame(ctx.stack);
  const Tensor rows = dispatcher_.dispatch(ctx, saved.dispatch, normed);
  const Tensor out_rows = push(ctx, "expert output", rows.shape);
  const WeightUse gate_up(state_, p.gate_up), down(state_, p.down);
  recipe_.expert_mlp(ctx, {.x = rows,
                           .gate_up_weight = *gate_up,
                           .down_weight = *down,
                           .row_weights = saved.dispatch.row_weights,
                           .groups = saved.dispatch.groups(),
                           .gate_up = saved.gate_up,
                           .y = out_rows});
  dispatcher_.combine(ctx, saved.dispatch, out_rows, saved.middle, normed);
}

void Mixtral::expert_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& prob_grad,
                                    const LayerSaved& saved, const Tensor& dh) const {
  const Stack::Frame frame(ctx.stack);
  const Tensor normed = push(ctx, "residual norm", dh.shape);
  rms_norm_recompute(ctx, saved.middle, *WeightUse(state_, p.post_norm), saved.middle_rstd, normed);

  const Tensor dnormed = push(ctx, "residual norm gradient", dh.shape);
  const Tensor dweights = push(ctx, "routing weights gradient", saved.routing.weights.shape);
  {
    const Stack::Frame expert_frame(ctx.stack);
    const Tensor rows = dispatcher_.dispatch(ctx, saved.dispatch, normed);
    const Tensor dout_rows = dispatcher_.combine_backward(ctx, saved.dispatch, dh);
    const Tensor drows = push(ctx, "expert rows gradient", rows.shape);
    const Tensor drow_weights = push(ctx, "row weights gradient", {rows.rows()});
    const WeightUse gate_up(state_, p.gate_up), down(state_, p.down);
    const WeightGradient dgate_up = weight_gradient(p.gate_up), ddown = weight_gradient(p.down);
    recipe_.expert_mlp_backward(ctx, {.x = rows,
                                      .gate_up_weight = *gate_up,
                                      .down_weight = *down,
                                      .row_weights = saved.dispatch.row_weights,
                                      .groups = saved.dispatch.groups(),
                                      .gate_up = saved.gate_up,
                                      .dy = dout_rows,
                                      .dx = drows,
                                      .drow_weights = drow_weights,
                                      .dgate_up_weight = dgate_up,
                                      .ddown_weight = ddown});
    if (dgate_up.tensor) state_.notify(p.gate_up);
    if (ddown.tensor) state_.notify(p.down);
    dispatcher_.dispatch_backward(ctx, saved.dispatch, drows, drow_weights, dnormed, dweights);
  }

  const Tensor dlogits = push(ctx, "router logits gradient", saved.router_logits.shape);
  router_backward(ctx, {.logits = saved.router_logits,
                        .experts = saved.routing.experts,
                        .weights = saved.routing.weights,
                        .dweights = dweights,
                        .prob_grad = prob_grad,
                        .live = batch.live_tokens,
                        .dlogits = dlogits});
  linear_backward(ctx, p.router, {.x = normed, .dy = dlogits, .dx = dnormed, .accumulate_dx = true});
  norm_backward(ctx, p.post_norm, {.r = saved.middle, .rstd = saved.middle_rstd, .dy = dnormed, .dr = dh});
}

void Mixtral::attention_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                                       const LayerSaved& saved, const Tensor& dh) const {
  const Stack::Frame frame(ctx.stack);
  const Tensor dattention = push(ctx, "attention output gradient", saved.attention.shape);
  const Tensor dqkv = push(ctx, "qkv gradient", saved.qkv.shape);
  linear_backward(ctx, p.attention_out, {.x = saved.attention, .dy = dh, .dx = dattention});
  attention_backward(ctx, attention_shape(batch),
                     {.qkv = saved.qkv, .out = saved.attention, .lse = saved.lse, .dout = dattention, .dqkv = dqkv});
  rope(ctx, {.qkv = dqkv,
             .table = rope_table,
             .q_heads = config_.num_attention_heads,
             .kv_heads = config_.num_key_value_heads,
             .inverse = true});

  const Tensor normed = push(ctx, "input norm", dh.shape), dnormed = push(ctx, "input norm gradient", dh.shape);
  rms_norm_recompute(ctx, saved.input, *WeightUse(state_, p.input_norm), saved.input_rstd, normed);
  linear_backward(ctx, p.qkv, {.x = normed, .dy = dqkv, .dx = dnormed});
  norm_backward(ctx, p.input_norm, {.r = saved.input, .rstd = saved.input_rstd, .dy = dnormed, .dr = dh});
}

}  // namespace mixtune
