#include "model/mixtral.h"

#include "base/random.h"
#include "kernels/embedding.h"
#include "kernels/rope.h"

namespace mixtune {

void Mixtral::begin_batch(Ctx& ctx, const Batch& batch, Saved& saved) const {
  saved.recomputed = 0;
  saved.rope_table = activations_.push_statistics(ctx, "rope table", {batch.positions.rows(), config_.head_dim});
  rope_table(ctx, batch.positions, config_.rope_theta, saved.rope_table);
  saved.router_stats =
      ctx.stack.push("router stats", {config_.num_hidden_layers, 2, config_.num_local_experts}, DType::kF64);
}

Tensor Mixtral::embed(Ctx& ctx, const Batch& batch) const {
  const Tensor h = activations_.push(ctx, "embedded tokens", {batch.ids.rows(), config_.hidden_size});
  embedding_forward(ctx, batch.ids, *WeightUse(ctx, state_, params_.embedding), h);
  add_embedding_adapter(ctx, *AdapterUse(ctx, state_, params_.embedding_adapter, params_.adapter_scale, {}), batch.ids,
                        h);
  return h;
}

void Mixtral::embed_backward(Ctx& ctx, const Batch& batch, const Tensor& dh) const {
  const AdapterUse adapter(ctx, state_, params_.embedding_adapter, params_.adapter_scale, {});
  embedding_adapter_backward(ctx, *adapter, {.ids = batch.ids, .rows_by_id = batch.rows_by_id, .dy = dh});
  adapter.notify();
  const WeightGradient gradient = weight_gradient(params_.embedding);
  if (!gradient.tensor) return;
  embedding_backward(
      ctx, {.index = batch.rows_by_id, .dy = dh, .dtable = gradient.tensor, .accumulate = gradient.accumulate});
  state_.gradients().notify(params_.embedding);
}

Mixtral::Layer Mixtral::layer(int64_t index, const Batch& batch, Saved& saved) const {
  return {.index = index,
          .params = params_.layers[index],
          .batch = batch,
          .rope_table = saved.rope_table,
          .router_stats = saved.router_stats.row(index),
          .router_tally = saved.router_tally ? saved.router_tally.row(index) : Tensor{},
          .forced = saved.forced.empty() ? Tensor{} : saved.forced[index],
          .dropped = saved.dropped,
          .noise = saved.noise ? std::optional(random_bits(*saved.noise, static_cast<uint64_t>(index))) : std::nullopt,
          .saved = saved.layers[index]};
}

Tensor Mixtral::layers(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& h, Saved& saved, bool keep) const {
  Routing routing;
  if (keep)
    routing.limit =
        activations_.capacity.limit(batch.live_tokens, config_.num_experts_per_tok, config_.num_local_experts);
  if (params_.adapter_dropout > 0 && saved.noise && params_.layers[range.begin].gate_up_adapter.is_set())
    routing.first_token = batch.first_token;
  Keeping::Forward keeping(keeping_, ctx, saved, keep, routing);
  Tensor x = h;
  for (int64_t l = range.begin; l < range.end; ++l) x = forward_layer(ctx, layer(l, batch, saved), x, keeping);
  return x;
}

Tensor Mixtral::forward_layer(Ctx& ctx, const Layer& layer, const Tensor& x, Keeping::Forward& keeping) const {
  // The normed input of either block, until the last op writes the layer's output there.
  const Tensor out = keeping.begin_layer(layer.index, x);
  attention_block(ctx, layer, out);
  route(ctx, layer, out);
  keeping.keep_experts();
  experts(ctx, layer, out);
  keeping.end_layer();
  return out;
}

void Mixtral::layers_backward(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& dh,
                              const RouterGradients& losses, Saved& saved) const {
  for (int64_t l = range.end - 1; l >= range.begin; --l) backward_layer(ctx, layer(l, batch, saved), losses, dh);
  state_.gradients().complete_from(ctx, state_.spec(params_.layers[range.begin].input_norm).place);
}

void Mixtral::backward_layer(Ctx& ctx, const Layer& layer, const RouterGradients& losses, const Tensor& dh) const {
  const Frame frame(ctx);
  if (keeping_.push_again(ctx, layer.index, layer.saved)) attention_block_again(ctx, layer);
  expert_block_backward(ctx, layer, losses, dh);
  if (layer.index == 0)  // nothing below would wait behind it
    state_.gradients().complete_from(ctx, state_.spec(layer.params.gate_up).place);
  attention_block_backward(ctx, layer, dh);
}

WeightGradient Mixtral::weight_gradient(int param) const {
  const GradientSync::Gradient gradient = state_.gradients().gradient(param);
  return {gradient.tensor, gradient.accumulate};
}

Dropout Mixtral::dropout(const Layer& layer, Draw purpose, const Tensor& numbers) const {
  if (params_.adapter_dropout == 0 || !layer.noise) return {};
  return {.share = params_.adapter_dropout,
          .key = draw_key(*layer.noise, purpose),
          .first = layer.batch.first_token,
          .numbers = numbers};
}

void Mixtral::linear(Ctx& ctx, const Projection& p, Recipe::Linear args) const {
  const Range range(ctx, p.name);
  const WeightUse weight(ctx, state_, p.param);
  AdapterUse adapter(ctx, state_, p.adapter, params_.adapter_scale, p.dropout);
  adapter.set_inner(p.inner);
  args.weight = operand(weight, p.param);
  args.accumulate_y = write_adapter(ctx, *adapter, {.x = args.x, .y = args.y});
  recipe_.linear(ctx, args);
}

void Mixtral::linear_backward(Ctx& ctx, const Projection& p, Recipe::LinearBackward args) const {
  const Range range(ctx, p.name);
  const Frame frame(ctx);
  const WeightUse weight(ctx, state_, p.param);
  args.weight = operand(weight, p.param);
  AdapterUse adapter(ctx, state_, p.adapter, params_.adapter_scale, p.dropout);
  adapter.set_inner(p.inner);
  adapter.push_v(ctx, args.dy);
  args.dweight = weight_gradient(p.param);
  args.accumulate_dx = write_adapter_data_gradient(ctx, *adapter, {.dy = args.dy, .dx = args.dx});
  recipe_.linear_backward(ctx, args);
  if (args.dweight.tensor) state_.gradients().notify(p.param);
  adapter_weight_gradient(ctx, *adapter, {.x = args.x, .dy = args.dy});
  adapter.notify();
}

void Mixtral::norm(Ctx& ctx, int param, RmsNormForward args) const {
  const WeightUse weight(ctx, state_, param);
  args.weight = *weight;
  args.eps = config_.rms_norm_eps;
  rms_norm_forward(ctx, args);
}

void Mixtral::norm_again(Ctx& ctx, int param, const Tensor& x, const Tensor& rstd, const Tensor& y) const {
  rms_norm_recompute(ctx, x, *WeightUse(ctx, state_, param), rstd, y);
}

void Mixtral::norm_backward(Ctx& ctx, int param, RmsNormBackward args) const {
  const WeightUse weight(ctx, state_, param);
  const WeightGradient gradient = weight_gradient(param);
  args.weight = *weight;
  args.dweight = gradient.tensor;
  args.accumulate = gradient.accumulate;
  rms_norm_backward(ctx, args);
  if (gradient.tensor) state_.gradients().notify(param);
}

}  // namespace mixtune
