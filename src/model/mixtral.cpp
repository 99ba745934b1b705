#include "model/mixtral.h"

#include <algorithm>
#include <cstring>

#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/rope.h"

namespace mixtune {

Tensor Mixtral::embed(Ctx& ctx, const Batch& batch, Saved& saved) const {
  const int64_t tokens = batch.ids.rows();
  saved.rope_table = push(ctx, "rope table", {tokens, config_.head_dim});
  rope_table(ctx, batch.positions, config_.rope_theta, saved.rope_table);
  saved.router_stats =
      ctx.stack.push("router stats", {config_.num_hidden_layers, 2, config_.num_local_experts}, DType::kF64);
  const Tensor h = push(ctx, "embedded tokens", {tokens, config_.hidden_size});
  embedding_forward(ctx, batch.ids, *WeightUse(state_, params_.embedding), h);
  return h;
}

void Mixtral::embed_backward(Ctx& ctx, const Batch& batch, const Tensor& dh) const {
  const WeightGradient gradient = weight_gradient(params_.embedding);
  if (!gradient.tensor) return;
  embedding_backward(ctx, batch.ids, dh, gradient.tensor, gradient.accumulate);
  state_.notify(params_.embedding);
}

Tensor Mixtral::layers(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& h, Saved& saved, bool keep) const {
  Tensor in = h;
  Tensor spare;
  for (int64_t l = range.begin; l < range.end; ++l) {
    const Tensor out = spare ? spare : push(ctx, "layer output", h.shape);
    LayerSaved& layer_saved = saved.layers[l];
    layer_saved.input = in;
    const size_t mark = ctx.stack.mark();
    layer(ctx, batch, params_.layers[l], saved.rope_table, saved.router_stats.row(l), layer_saved, out);
    if (!keep) {
      ctx.stack.release(mark);
      if (l > range.begin) spare = in;
    }
    in = out;
  }
  return in;
}

void Mixtral::layer(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table, const Tensor& stats,
                    LayerSaved& saved, const Tensor& out) const {
  // `out` holds the normed input of either block until the last op writes the layer's output there.
  attention_forward_block(ctx, batch, p, rope_table, saved, out);
  expert_forward_block(ctx, batch, p, stats, saved, out);
}

void Mixtral::layers_backward(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& dh, const Tensor& prob_grad,
                              Saved& saved) const {
  for (int64_t l = range.end - 1; l >= range.begin; --l) {
    const Tensor layer_prob_grad = prob_grad ? prob_grad.row(l) : Tensor{};
    expert_backward_block(ctx, batch, params_.layers[l], layer_prob_grad, saved.layers[l], dh);
    attention_backward_block(ctx, batch, params_.layers[l], saved.rope_table, saved.layers[l], dh);
  }
}

double Mixtral::head_loss(Ctx& ctx, const Batch& batch, const HeadLoss& args) const {
  // Enough rows to fill the matrix products, few enough that a chunk of logits stays small.
  constexpr int64_t kChunkBytes = 16 << 20;
  const int64_t tokens = args.h.rows(), row_bytes = config_.vocab_size * static_cast<int64_t>(dtype_size(args.h.dtype));
  const int64_t chunk = std::max(kRowAlignment, kChunkBytes / row_bytes / kRowAlignment * kRowAlignment);
  const bool backward = static_cast<bool>(args.dh);

  const Stack::Frame frame(ctx.stack);
  const Tensor normed = push(ctx, "final norm", args.h.shape), rstd = push(ctx, "final rstd", {tokens});
  const Tensor losses = ctx.stack.push("token losses", {tokens}, DType::kF64);
  const Tensor all_logits = push(ctx, "logits", {std::min(chunk, tokens), config_.vocab_size});
  const Tensor dnormed = backward ? push(ctx, "final norm gradient", args.h.shape) : Tensor{};
  rms_norm_forward(ctx, {.x = args.h,
                         .weight = *WeightUse(state_, params_.final_norm),
                         .eps = config_.rms_norm_eps,
                         .y = normed,
                         .rstd = rstd});
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t rows = std::min(chunk, tokens - begin);
    const Tensor logits = all_logits.slice(0, rows), x = normed.slice(begin, rows);
    linear(ctx, params_.lm_head, x, logits);
    cross_entropy(ctx, {.logits = logits,
                        .targets = batch.targets.slice(begin, rows),
                        .losses = losses.slice(begin, rows),
                        .gradient = backward,
                        .scale = args.scale});
    if (backward) linear_backward(ctx, params_.lm_head, {.x = x, .dy = logits, .dx = dnormed.slice(begin, rows)});
  }
  if (backward) {
    std::memset(args.dh.data, 0, args.dh.bytes());
    norm_backward(ctx, params_.final_norm, {.r = args.h, .rstd = rstd, .dy = dnormed, .dr = args.dh});
  }
  double sum = 0;
  for (int64_t t = 0; t < batch.live_tokens; ++t) sum += losses.as<double>()[t];
  return sum;
}

void Mixtral::head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const {
  const Stack::Frame frame(ctx.stack);
  const Tensor normed = push(ctx, "final norm", h.shape), rstd = push(ctx, "final rstd", {h.rows()});
  rms_norm_forward(ctx, {.x = h,
                         .weight = *WeightUse(state_, params_.final_norm),
                         .eps = config_.rms_norm_eps,
                         .y = normed,
                         .rstd = rstd});
  linear(ctx, params_.lm_head, normed, logits);
}

AttentionShape Mixtral::attention_shape(const Batch& batch) const {
  return {.q_heads = config_.num_attention_heads,
          .kv_heads = config_.num_key_value_heads,
          .head_dim = config_.head_dim,
          .window = config_.sliding_window,
          .doc_offsets = batch.doc_offsets};
}

WeightGradient Mixtral::weight_gradient(int param) const {
  const State::Gradient gradient = state_.gradient(param);
  return {gradient.tensor, gradient.accumulate};
}

void Mixtral::linear(Ctx& ctx, int param, const Tensor& x, const Tensor& y) const {
  recipe_.linear(ctx, x, *WeightUse(state_, param), y);
}

void Mixtral::linear_backward(Ctx& ctx, int param, Recipe::LinearBackward args) const {
  const WeightUse weight(state_, param);
  args.weight = *weight;
  args.dweight = weight_gradient(param);
  recipe_.linear_backward(ctx, args);
  if (args.dweight.tensor) state_.notify(param);
}

void Mixtral::norm_backward(Ctx& ctx, int param, RmsNormBackward args) const {
  const WeightUse weight(state_, param);
  const WeightGradient gradient = weight_gradient(param);
  args.weight = *weight;
  args.dweight = gradient.tensor;
  args.accumulate = gradient.accumulate;
  rms_norm_backward(ctx, args);
  if (gradient.tensor) state_.notify(param);
}

}  // namespace mixtune
