// The expert block, forward and backward: the residual stream + the experts' outputs, weighed by the router.
#include "kernels/moe/capacity.h"
#include "kernels/moe/router_health.h"
#include "model/mixtral.h"

namespace mixtune {

void Mixtral::route(Ctx& ctx, const Layer& layer, const Tensor& normed) const {
  LayerSaved& saved = layer.saved;
  Routing& routing = saved.routing;
  if (layer.forced) routing.experts = layer.forced;
  if (!routing.limit.is_set()) routing.sent = routing.experts;
  choose_experts(ctx, layer, normed);
  if (routing.limit.is_set())
    drop_pairs(ctx, {.experts = routing.experts,
                     .weights = routing.weights,
                     .all_experts = config_.num_local_experts,
                     .most = routing.limit.most,
                     .policy = activations_.capacity.policy,
                     .sent = routing.sent,
                     .dropped = layer.dropped});
  dispatcher_.plan(ctx, routing, saved.dispatch);
}

void Mixtral::choose_experts(Ctx& ctx, const Layer& layer, const Tensor& normed) const {
  const Frame frame(ctx);
  const bool is_biased = router_.has_bias() && !layer.forced;  // the losses count another choice than the tally
  const Tensor stats =
      is_biased ? ctx.stack.push("router stats, biased", layer.router_stats.shape, DType::kF64) : layer.router_stats;
  const WeightUse weight(ctx, state_, layer.params.router);
  const AdapterUse adapter(ctx, state_, layer.params.router_adapter, params_.adapter_scale,
                           dropout(layer, Draw::kRouterDropout));
  router_.forward(ctx, {.x = normed,
                        .weight = *weight,
                        .logits = layer.saved.router_logits,
                        .routing = layer.saved.routing,
                        .stats = stats,
                        .loss_stats = is_biased ? layer.router_stats : Tensor{},
                        .batch = layer.batch,
                        .layer = layer.index,
                        .forced = static_cast<bool>(layer.forced),
                        .noise = layer.noise,
                        .adapter = *adapter});
  if (layer.router_tally)
    router_health(ctx, {.logits = layer.saved.router_logits,
                        .live = layer.batch.live_tokens,
                        .stats = stats,
                        .tally = layer.router_tally});
}

Mixtral::ExpertAdapters Mixtral::expert_adapters(Ctx& ctx, const Layer& layer, const DispatchHandle& dispatch) const {
  const auto use = [&](const AdapterParams& params, Draw purpose) {
    return AdapterUse(ctx, state_, params, params_.adapter_scale, dropout(layer, purpose, dispatch.row_numbers));
  };
  return {use(layer.params.gate_up_adapter, Draw::kGateUpDropout), use(layer.params.down_adapter, Draw::kDownDropout)};
}

void Mixtral::experts(Ctx& ctx, const Layer& layer, const Tensor& normed) const {
  const LayerSaved& saved = layer.saved;
  const Frame frame(ctx);
  const Tensor gate_up = keeping_.gate_up(ctx, saved);
  const Tensor rows = dispatcher_.dispatch(ctx, saved.dispatch, normed);
  const Tensor out_rows = activations_.push(ctx, "expert output", rows.shape);
  const WeightUse gate_up_weight(ctx, state_, layer.params.gate_up), down_weight(ctx, state_, layer.params.down);
  ExpertAdapters adapters = expert_adapters(ctx, layer, saved.dispatch);
  adapters.gate_up.push_inner(ctx, saved.gate_up_inner, rows);
  adapters.down.set_inner(saved.down_inner);
  recipe_.expert_mlp(ctx, {.x = rows,
                           .gate_up_weight = operand(gate_up_weight, layer.params.gate_up),
                           .down_weight = operand(down_weight, layer.params.down),
                           .row_weights = saved.dispatch.row_weights,
                           .groups = saved.dispatch.groups(),
                           .gate_up = gate_up,
                           .y = out_rows,
                           .kept_rows = saved.expert_rows,
                           .gate_up_adapter = *adapters.gate_up,
                           .down_adapter = *adapters.down});
  dispatcher_.combine(ctx, saved.dispatch, out_rows, saved.middle, normed);
}

void Mixtral::expert_block_backward(Ctx& ctx, const Layer& layer, const RouterGradients& losses,
                                    const Tensor& dh) const {
  const LayerSaved& saved = layer.saved;
  const Frame frame(ctx);
  const Tensor normed = activations_.push(ctx, "residual norm", dh.shape);
  norm_again(ctx, layer.params.post_norm, saved.middle, saved.middle_rstd, normed);
  const Tensor dnormed = activations_.push(ctx, "residual norm gradient", dh.shape);
  const Tensor dweights = activations_.push_statistics(ctx, "routing weights gradient", saved.routing.weights.shape);
  experts_backward(ctx, layer, {.normed = normed, .dh = dh, .dnormed = dnormed, .dweights = dweights});
  route_backward(ctx, layer, {.normed = normed, .dweights = dweights, .losses = losses, .dnormed = dnormed});
  norm_backward(ctx, layer.params.post_norm, {.r = saved.middle, .rstd = saved.middle_rstd, .dy = dnormed, .dr = dh});
}

void Mixtral::experts_backward(Ctx& ctx, const Layer& layer, const ExpertsBackward& args) const {
  const LayerParams& p = layer.params;
  const Frame frame(ctx);
  const WeightUse gate_up_use(ctx, state_, p.gate_up), down_use(ctx, state_, p.down);
  const Recipe::Weight gate_up_weight = operand(gate_up_use, p.gate_up), down_weight = operand(down_use, p.down);
  DispatchHandle dispatch = layer.saved.dispatch;
  Tensor rows;
  if (!layer.saved.expert_rows) rows = dispatcher_.dispatch_again(ctx, layer.saved.routing, dispatch, args.normed);
  ExpertAdapters adapters = expert_adapters(ctx, layer, dispatch);
  const Tensor gate_up = keeping_.gate_up(ctx, layer.saved);
  adapters.gate_up.push_inner(ctx, layer.saved.gate_up_inner, gate_up);
  adapters.down.set_inner(layer.saved.down_inner);
  if (!layer.saved.gate_up)
    recipe_.expert_gate_up(ctx, {.x = rows,
                                 .weight = gate_up_weight,
                                 .groups = dispatch.groups(),
                                 .gate_up = gate_up,
                                 .adapter = *adapters.gate_up});
  const Tensor dout_rows = dispatcher_.combine_backward(ctx, dispatch, args.dh);
  // What lies above comes behind the exchange that was waited for.
  state_.gradients().complete_from(ctx, {.stage = state_.spec(p.down).place.stage, .layer = layer.index + 1});
  const Tensor drows = activations_.push(ctx, "expert rows gradient", dout_rows.shape);
  const Tensor drow_weights = activations_.push_statistics(ctx, "row weights gradient", {dispatch.rows});
  const Recipe::GateUpGradient dgate_up = recipe_.push_gate_up_gradient(ctx, gate_up, down_weight);
  adapters.gate_up.push_v(ctx, gate_up);
  adapters.down.push_v(ctx, dout_rows);
  const WeightGradient dgate_up_weight = weight_gradient(p.gate_up), ddown = weight_gradient(p.down);
  recipe_.expert_mlp_backward(ctx, {.gate_up_weight = gate_up_weight,
                                    .down_weight = down_weight,
                                    .row_weights = dispatch.row_weights,
                                    .groups = dispatch.groups(),
                                    .gate_up = gate_up,
                                    .dy = dout_rows,
                                    .dgate_up = dgate_up,
                                    .dx = drows,
                                    .drow_weights = drow_weights,
                                    .ddown_weight = ddown,
                                    .gate_up_adapter = *adapters.gate_up,
                                    .down_adapter = *adapters.down});
  const Dispatcher::Returning returning = dispatcher_.start_return(ctx, dispatch, drows, drow_weights);
  recipe_.expert_gate_up_weight_gradient(ctx, {.x = rows,
                                               .kept_rows = layer.saved.expert_rows,
                                               .dgate_up = dgate_up,
                                               .groups = dispatch.groups(),
                                               .dweight = dgate_up_weight,
                                               .adapter = *adapters.gate_up});
  if (dgate_up_weight.tensor) state_.gradients().notify(p.gate_up);
  if (ddown.tensor) state_.gradients().notify(p.down);
  adapters.gate_up.notify();
  adapters.down.notify();
  dispatcher_.dispatch_backward(ctx, dispatch, returning, args.dnormed, args.dweights);
}

void Mixtral::route_backward(Ctx& ctx, const Layer& layer, const RouteBackward& args) const {
  const int router = layer.params.router;
  const WeightGradient dweight = weight_gradient(router);
  const WeightUse weight(ctx, state_, router);
  const AdapterUse adapter(ctx, state_, layer.params.router_adapter, params_.adapter_scale,
                           dropout(layer, Draw::kRouterDropout));
  router_.backward(ctx, {.x = args.normed,
                         .weight = *weight,
                         .logits = layer.saved.router_logits,
                         .routing = layer.saved.routing,
                         .batch = layer.batch,
                         .losses = args.losses,
                         .layer = layer.index,
                         .dweights = args.dweights,
                         .dx = args.dnormed,
                         .dweight = dweight,
                         .noise = layer.noise,
                         .adapter = *adapter});
  if (dweight.tensor) state_.gradients().notify(router);
  adapter.notify();
}

}  // namespace mixtune
