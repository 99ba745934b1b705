#include "model/mixtral.h"

#include <algorithm>
#include <cstring>

#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/permute.h"
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
  const int64_t n = batch.target_tokens(), h = config_.hidden_size;
  const bool backward = static_cast<bool>(args.dh);
  const Stack::Frame frame(ctx.stack);
  const Tensor x = push(ctx, "rows with a target", {n, h});
  const Tensor normed = push(ctx, "final norm", {n, h}), rstd = push(ctx, "final rstd", {n});
  const Tensor dnormed = backward ? push(ctx, "final norm gradient", {n, h}) : Tensor{};
  permute_rows(ctx, args.h, batch.target_rows, 1, x);
  final_norm(ctx, x, normed, rstd);
  const double loss = chunked_loss(ctx, {normed, batch.targets, dnormed, args.scale});
  if (!backward) return loss;

  const Tensor dx = push(ctx, "gradient of rows with a target", {n, h});
  std::memset(dx.data, 0, dx.bytes());
  norm_backward(ctx, params_.final_norm, {.r = x, .rstd = rstd, .dy = dnormed, .dr = dx});
  const Tensor place = ctx.stack.push("place of each row", {args.h.rows(), 1}, DType::kI32);
  permute_invert(ctx, batch.target_rows, place);
  unpermute_rows(ctx, dx, place, {}, args.dh);
  return loss;
}

double Mixtral::chunked_loss(Ctx& ctx, const ChunkedLoss& args) const {
  // Enough rows to fill the matrix products, few enough that a chunk of logits stays small.
  constexpr int64_t kChunkBytes = 16 << 20;
  const int64_t rows = args.normed.rows();
  const int64_t row_bytes = config_.vocab_size * static_cast<int64_t>(dtype_size(args.normed.dtype));
  const int64_t chunk = std::max(kRowAlignment, kChunkBytes / row_bytes / kRowAlignment * kRowAlignment);
  const Tensor losses = ctx.stack.push("token losses", {rows}, DType::kF64);
  const Tensor all_logits = push(ctx, "logits", {std::min(chunk, rows), config_.vocab_size});
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const Tensor logits = all_logits.slice(0, count), x = args.normed.slice(begin, count);
    linear(ctx, params_.lm_head, x, logits);
    cross_entropy(ctx, {.logits = logits,
                        .targets = args.targets.slice(begin, count),
                        .losses = losses.slice(begin, count),
                        .gradient = static_cast<bool>(args.dnormed),
                        .scale = args.scale});
    if (args.dnormed)
      linear_backward(ctx, params_.lm_head, {.x = x, .dy = logits, .dx = args.dnormed.slice(begin, count)});
  }
  double sum = 0;
  for (int64_t t = 0; t < rows; ++t) sum += losses.as<double>()[t];
  return sum;
}

void Mixtral::final_norm(Ctx& ctx, const Tensor& h, const Tensor& normed, const Tensor& rstd) const {
  rms_norm_forward(ctx, {.x = h,
                         .weight = *WeightUse(state_, params_.final_norm),
                         .eps = config_.rms_norm_eps,
                         .y = normed,
                         .rstd = rstd});
}

void Mixtral::head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const {
  const Stack::Frame frame(ctx.stack);
  const Tensor normed = push(ctx, "final norm", h.shape), rstd = push(ctx, "final rstd", {h.rows()});
  final_norm(ctx, h, normed, rstd);
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
