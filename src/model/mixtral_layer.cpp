// The two blocks of a decoder layer, forward and backward.
#include <limits>

#include "kernels/moe/router.h"
#include "kernels/rope.h"
#include "model/mixtral.h"

namespace mixtune {

void Mixtral::push_routing(Ctx& ctx, LayerSaved& saved) const {
  const int64_t tokens = saved.input.rows(), k = config_.num_experts_per_tok;
  saved.router_logits = push_statistics(ctx, "router logits", {tokens, config_.num_local_experts});
  saved.routing.experts = ctx.stack.push("chosen experts", {tokens, k}, DType::kI32);
  saved.routing.weights = push_statistics(ctx, "routing weights", {tokens, k});
  saved.dispatch = dispatcher_.reserve(ctx, saved.routing);
}

void Mixtral::push_attention(Ctx& ctx, LayerSaved& saved) const {
  const int64_t tokens = saved.input.rows();
  saved.input_rstd = push_statistics(ctx, "input rstd", {tokens});
  saved.qkv = push(ctx, "qkv", {tokens, config_.qkv_size()});
  saved.attention = push(ctx, "attention output", {tokens, config_.query_size()});
  saved.lse = push_statistics(ctx, "attention log-sum-exp", {tokens, config_.num_attention_heads});
  saved.middle = push(ctx, "residual after attention", saved.input.shape);
  saved.middle_rstd = push_statistics(ctx, "residual rstd", {tokens});
}

int64_t Mixtral::room_for_rows(const Ctx& ctx, int64_t layer, const LayerSaved& saved) const {
  if (still_needed_.empty()) return std::numeric_limits<int64_t>::max();
  const size_t row = config_.hidden_size * dtype_size(state_.dtype()) + dtype_size(saved.routing.weights.dtype);
  const size_t needed = still_needed_[layer] + 2 * kAlignment;  // of two tensors: rows, and their weights
  return needed < ctx.stack.left() ? static_cast<int64_t>((ctx.stack.left() - needed) / row) : 0;
}

bool Mixtral::keep_experts(Ctx& ctx, int64_t layer, LayerSaved& saved) const {
  if (recompute_ == Recompute::kFull) return true;
  const bool rows_fit = dispatcher_.keep_rows(ctx, saved.dispatch, config_.hidden_size, state_.dtype());
  if (recompute_ == Recompute::kSelective) return rows_fit;
  const Shape shape = {saved.dispatch.rows, 2 * config_.intermediate_size};
  const size_t bytes = align_up(static_cast<size_t>(shape.elements()) * dtype_size(state_.dtype()));
  if (!still_needed_.empty() && bytes + still_needed_[layer] > ctx.stack.left()) return false;
  saved.gate_up = push(ctx, "gate-up output", shape);
  return rows_fit;
}

// Writes the residual stream after attention to saved.middle, and its norm to `normed`.
void Mixtral::attention_forward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                                      LayerSaved& saved, const Tensor& normed) const {
  const Frame frame(ctx);
  const Tensor projected = push(ctx, "attention projection", saved.input.shape);
  rms_norm_forward(ctx, {.x = saved.input,
                         .weight = *WeightUse(ctx, state_, p.input_norm),
                         .eps = config_.rms_norm_eps,
                         .y = normed,
                         .rstd = saved.input_rstd});
  linear(ctx, {p.qkv, "qkv"}, normed, saved.qkv);
  rope(ctx, {.qkv = saved.qkv,
             .table = rope_table,
             .q_heads = config_.num_attention_heads,
             .kv_heads = config_.num_key_value_heads});
  attention_forward(ctx, attention_shape(batch), saved.qkv, saved.attention, saved.lse);
  linear(ctx, {p.attention_out, "attention output"}, saved.attention, projected);
  rms_norm_forward(ctx, {.x = saved.input,
                         .delta = projected,
                         .weight = *WeightUse(ctx, state_, p.post_norm),
                         .eps = config_.rms_norm_eps,
                         .r = saved.middle,
                         .y = normed,
                         .rstd = saved.middle_rstd});
}

// The routing of the block's input `normed`, to experts that the router chooses or that are forced on it.
void Mixtral::route(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& stats, LayerSaved& saved,
                    const Tensor& normed, const Tensor& forced) const {
  if (forced) saved.routing.experts = forced;
  router_logits(ctx, normed, *WeightUse(ctx, state_, p.router), saved.router_logits);
  router_forward(ctx, {.logits = saved.router_logits,
                       .live = batch.live_tokens,
                       .experts = saved.routing.experts,
                       .weights = saved.routing.weights,
                       .stats = stats,
                       .forced = static_cast<bool>(forced)});
  dispatcher_.plan(ctx, saved.routing, saved.dispatch);
}

// Reads the block's input from `normed` and leaves the layer's output there.
void Mixtral::expert_forward_block(Ctx& ctx, const LayerParams& p, const LayerSaved& saved,
                                   const Tensor& normed) const {
  const Frame frame(ctx);
  const Shape gate_up_shape = {saved.dispatch.rows, 2 * config_.intermediate_size};
  const Tensor gate_up = saved.gate_up ? saved.gate_up : push(ctx, "gate-up output", gate_up_shape);
  const Tensor rows = dispatcher_.dispatch(ctx, saved.dispatch, normed);
  const Tensor out_rows = push(ctx, "expert output", rows.shape);
  const WeightUse gate_up_weight(ctx, state_, p.gate_up), down_weight(ctx, state_, p.down);
  recipe_.expert_mlp(ctx, {.x = rows,
                           .gate_up_weight = *gate_up_weight,
                           .down_weight = *down_weight,
                           .row_weights = saved.dispatch.row_weights,
                           .groups = saved.dispatch.groups(),
                           .gate_up = gate_up,
                           .y = out_rows});
  dispatcher_.combine(ctx, saved.dispatch, out_rows, saved.middle, normed);
}

void Mixtral::expert_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& prob_grad,
                                    const LayerSaved& saved, const Tensor& dh) const {
  const Frame frame(ctx);
  const Tensor normed = push(ctx, "residual norm", dh.shape);
  rms_norm_recompute(ctx, saved.middle, *WeightUse(ctx, state_, p.post_norm), saved.middle_rstd, normed);
  const Tensor dnormed = push(ctx, "residual norm gradient", dh.shape);
  const Tensor dweights = push_statistics(ctx, "routing weights gradient", saved.routing.weights.shape);
  experts_backward(ctx, p, saved, {.normed = normed, .dh = dh, .dnormed = dnormed, .dweights = dweights});
  const Tensor dlogits = push_statistics(ctx, "router logits gradient", saved.router_logits.shape);
  router_backward(ctx, {.logits = saved.router_logits,
                        .experts = saved.routing.experts,
                        .weights = saved.routing.weights,
                        .dweights = dweights,
                        .prob_grad = prob_grad,
                        .live = batch.live_tokens,
                        .dlogits = dlogits});
  const WeightGradient dweight = weight_gradient(p.router);
  router_logits_backward(ctx, {.x = normed,
                               .weight = *WeightUse(ctx, state_, p.router),
                               .dlogits = dlogits,
                               .dx = dnormed,
                               .dweight = dweight.tensor,
                               .accumulate = dweight.accumulate});
  if (dweight.tensor) state_.notify(p.router);
  norm_backward(ctx, p.post_norm, {.r = saved.middle, .rstd = saved.middle_rstd, .dy = dnormed, .dr = dh});
}

void Mixtral::experts_backward(Ctx& ctx, const LayerParams& p, const LayerSaved& saved,
                               const ExpertsBackward& args) const {
  const Frame frame(ctx);
  const WeightUse gate_up_weight(ctx, state_, p.gate_up), down_weight(ctx, state_, p.down);
  DispatchHandle dispatch = saved.dispatch;
  const Tensor rows = dispatcher_.dispatch_again(ctx, saved.routing, dispatch, args.normed);
  Tensor gate_up = saved.gate_up;
  if (!gate_up) {
    gate_up = push(ctx, "gate-up output", {rows.rows(), 2 * config_.intermediate_size});
    recipe_.expert_gate_up(ctx, rows, *gate_up_weight, dispatch.groups(), gate_up);
  }
  const Tensor dout_rows = dispatcher_.combine_backward(ctx, dispatch, args.dh);
  state_.complete_from(ctx, p.down + 1);  // of what lies above, behind the exchange that was waited for
  const Tensor drows = push(ctx, "expert rows gradient", rows.shape);
  const Tensor drow_weights = push_statistics(ctx, "row weights gradient", {rows.rows()});
  const WeightGradient dgate_up = weight_gradient(p.gate_up), ddown = weight_gradient(p.down);
  recipe_.expert_mlp_backward(ctx, {.x = rows,
                                    .gate_up_weight = *gate_up_weight,
                                    .down_weight = *down_weight,
                                    .row_weights = dispatch.row_weights,
                                    .groups = dispatch.groups(),
                                    .gate_up = gate_up,
                                    .dy = dout_rows,
                                    .dx = drows,
                                    .drow_weights = drow_weights,
                                    .ddown_weight = ddown});
  const Dispatcher::Returning returning = dispatcher_.start_return(ctx, dispatch, drows, drow_weights);
  recipe_.expert_gate_up_weight_gradient(
      ctx, {.x = rows, .dgate_up = gate_up, .groups = dispatch.groups(), .dweight = dgate_up});
  if (dgate_up.tensor) state_.notify(p.gate_up);
  if (ddown.tensor) state_.notify(p.down);
  dispatcher_.dispatch_backward(ctx, dispatch, returning, args.dnormed, args.dweights);
}

void Mixtral::attention_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                                       const LayerSaved& saved, const Tensor& dh) const {
  const Frame frame(ctx);
  const Tensor dattention = push(ctx, "attention output gradient", saved.attention.shape);
  const Tensor dqkv = push(ctx, "qkv gradient", saved.qkv.shape);
  linear_backward(ctx, {p.attention_out, "attention output, backward"},
                  {.x = saved.attention, .dy = dh, .dx = dattention});
  attention_backward(ctx, attention_shape(batch),
                     {.qkv = saved.qkv, .out = saved.attention, .lse = saved.lse, .dout = dattention, .dqkv = dqkv});
  rope(ctx, {.qkv = dqkv,
             .table = rope_table,
             .q_heads = config_.num_attention_heads,
             .kv_heads = config_.num_key_value_heads,
             .inverse = true});
  const Tensor normed = push(ctx, "input norm", dh.shape), dnormed = push(ctx, "input norm gradient", dh.shape);
  rms_norm_recompute(ctx, saved.input, *WeightUse(ctx, state_, p.input_norm), saved.input_rstd, normed);
  linear_backward(ctx, {p.qkv, "qkv, backward"}, {.x = normed, .dy = dqkv, .dx = dnormed});
  norm_backward(ctx, p.input_norm, {.r = saved.input, .rstd = saved.input_rstd, .dy = dnormed, .dr = dh});
}

}  // namespace mixtune
