#include "model/mixtral.h"

#include <algorithm>

#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/moe/permute.h"
#include "kernels/reduce.h"
#include "kernels/rope.h"

namespace mixtune {

Tensor Mixtral::embed(Ctx& ctx, const Batch& batch, Saved& saved) const {
  const int64_t tokens = batch.ids.rows();
  saved.recomputed = 0;
  saved.rope_table = push_statistics(ctx, "rope table", {tokens, config_.head_dim});
  rope_table(ctx, batch.positions, config_.rope_theta, saved.rope_table);
  saved.router_stats =
      ctx.stack.push("router stats", {config_.num_hidden_layers, 2, config_.num_local_experts}, DType::kF64);
  const Tensor h = push(ctx, "embedded tokens", {tokens, config_.hidden_size});
  embedding_forward(ctx, batch.ids, *WeightUse(ctx, state_, params_.embedding), h);
  return h;
}

void Mixtral::embed_backward(Ctx& ctx, const Batch& batch, const Tensor& dh) const {
  const WeightGradient gradient = weight_gradient(params_.embedding);
  if (!gradient.tensor) return;
  embedding_backward(
      ctx, {.index = batch.rows_by_id, .dy = dh, .dtable = gradient.tensor, .accumulate = gradient.accumulate});
  state_.notify(params_.embedding);
}

Tensor Mixtral::layers(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& h, Saved& saved, bool keep) const {
  Tensor in = h;
  Tensor spare;
  for (int64_t l = range.begin; l < range.end; ++l) {
    // `out` holds the normed input of either block until the last op writes the layer's output there.
    const Tensor out = spare ? spare : push(ctx, "layer output", h.shape);
    const LayerParams& p = params_.layers[l];
    LayerSaved& layer = saved.layers[l];
    layer.input = in;
    const size_t host_mark = ctx.host_stack.mark(), mark = ctx.stack.mark();
    push_routing(ctx, layer);
    const size_t kept_by_full = ctx.stack.mark();
    push_attention(ctx, layer);
    attention_forward_block(ctx, batch, p, saved.rope_table, layer, out);
    if (keep) layer.dispatch.room = room_for_rows(ctx, l, layer);
    route(ctx, batch, p, saved.router_stats.row(l), layer, out, saved.forced.empty() ? Tensor{} : saved.forced[l]);
    layer.gate_up = {};
    layer.mark = ctx.stack.mark();
    if (keep && !keep_experts(ctx, l, layer)) ++saved.recomputed;
    expert_forward_block(ctx, p, layer, out);
    if (!keep) {
      ctx.stack.release(mark);
      ctx.host_stack.release(host_mark);
      if (l > range.begin) spare = in;
    } else if (recompute_ == Recompute::kFull) {
      ctx.stack.release(kept_by_full);
    }
    in = out;
  }
  return in;
}

void Mixtral::layers_backward(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& dh, const Tensor& prob_grad,
                              Saved& saved) const {
  for (int64_t l = range.end - 1; l >= range.begin; --l) {
    const Frame frame(ctx);
    const LayerParams& p = params_.layers[l];
    LayerSaved& layer = saved.layers[l];
    if (recompute_ == Recompute::kFull) {
      push_attention(ctx, layer);
      const Frame normed_frame(ctx);
      attention_forward_block(ctx, batch, p, saved.rope_table, layer, push(ctx, "residual norm", dh.shape));
    }
    expert_backward_block(ctx, batch, p, prob_grad ? prob_grad.row(l) : Tensor{}, layer, dh);
    if (l == 0) state_.complete_from(ctx, p.gate_up);  // nothing below would wait behind it
    attention_backward_block(ctx, batch, p, saved.rope_table, layer, dh);
  }
  state_.complete_from(ctx, params_.layers[range.begin].input_norm);
}

void Mixtral::head_loss(Ctx& ctx, const Batch& batch, const HeadLoss& args) const {
  const int64_t n = batch.target_tokens(), h = config_.hidden_size;
  const bool backward = static_cast<bool>(args.dh);
  const Frame frame(ctx);
  const Range range(ctx, "LM head and loss");
  const Tensor x = push(ctx, "rows with a target", {n, h});
  const Tensor normed = push(ctx, "final norm", {n, h}), rstd = push_statistics(ctx, "final rstd", {n});
  const Tensor dnormed = backward ? push(ctx, "final norm gradient", {n, h}) : Tensor{};
  permute_rows(ctx, args.h, batch.target_rows, 1, x);
  final_norm(ctx, x, normed, rstd);
  chunked_loss(ctx, {normed, batch.targets, batch.weights, args.loss, dnormed, args.scale});
  if (!backward) return;

  const Tensor dx = push(ctx, "gradient of rows with a target", {n, h});
  zero(ctx, dx);
  norm_backward(ctx, params_.final_norm, {.r = x, .rstd = rstd, .dy = dnormed, .dr = dx});
  const Tensor place = ctx.stack.push("place of each row", {args.h.rows(), 1}, DType::kI32);
  permute_invert(ctx, batch.target_rows, place);
  unpermute_rows(ctx, dx, place, {}, args.dh);
}

namespace {

// Bytes of logits at a time: enough rows to fill the matrix products, few enough that they stay small.
int64_t logits_chunk_bytes(const Ctx& ctx) {
  return ctx.like_gpu() ? int64_t{512} << 20 : int64_t{16} << 20;
}

}  // namespace

// In fp32 on the stack where the gradient itself is held in less: rounding each chunk's sum would make an error that
// grows with the number of chunks.
WeightGradient Mixtral::begin_head_gradient(Ctx& ctx) const {
  const WeightGradient own = weight_gradient(params_.lm_head);
  if (!own.tensor || own.tensor.dtype == statistics_dtype(own.tensor.dtype)) return own;
  const Tensor sum = ctx.stack.push("LM head gradient in fp32", own.tensor.shape, statistics_dtype(own.tensor.dtype));
  if (own.accumulate) cast(ctx, own.tensor, sum);
  return {sum, own.accumulate};
}

void Mixtral::finish_head_gradient(Ctx& ctx, const WeightGradient& sum) const {
  if (!sum.tensor) return;
  const Tensor own = weight_gradient(params_.lm_head).tensor;
  if (own.dtype != sum.tensor.dtype) {
    const Range range(ctx, "LM head gradient, rounded");
    cast(ctx, sum.tensor, own);
  }
  state_.notify(params_.lm_head);
}

void Mixtral::chunked_loss(Ctx& ctx, const ChunkedLoss& args) const {
  const int64_t rows = args.normed.rows(), vocab = config_.vocab_size;
  const DType dtype = state_.dtype(), logits_dtype = statistics_dtype(dtype);
  const int64_t row_bytes = vocab * static_cast<int64_t>(dtype_size(logits_dtype));
  const int64_t chunk = std::max(kRowAlignment, logits_chunk_bytes(ctx) / row_bytes / kRowAlignment * kRowAlignment);
  const Shape shape = {std::min(chunk, rows), vocab};
  const Tensor losses = ctx.stack.push("token losses", {rows}, DType::kF64);
  const Tensor all_logits = ctx.stack.push("logits", shape, logits_dtype);
  WeightGradient head_gradient = args.dnormed ? begin_head_gradient(ctx) : WeightGradient{};
  const Tensor all_dlogits = dtype == logits_dtype ? all_logits : ctx.stack.push("logits gradient", shape, dtype);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const Tensor logits = all_logits.slice(0, count), x = args.normed.slice(begin, count);
    const Tensor dlogits = args.dnormed ? all_dlogits.slice(0, count) : Tensor{};
    linear(ctx, {params_.lm_head, "LM head"}, x, logits);
    cross_entropy(ctx, {.logits = logits,
                        .targets = args.targets.slice(begin, count),
                        .losses = losses.slice(begin, count),
                        .dlogits = dlogits,
                        .weights = args.weights ? args.weights.slice(begin, count) : Tensor{},
                        .scale = args.scale});
    if (!dlogits) continue;
    const Range range(ctx, "LM head, backward");
    recipe_.linear_backward(ctx, {.x = x,
                                  .weight = *WeightUse(ctx, state_, params_.lm_head),
                                  .dy = dlogits,
                                  .dx = args.dnormed.slice(begin, count),
                                  .dweight = head_gradient});
    head_gradient.accumulate = true;
  }
  if (rows > 0) finish_head_gradient(ctx, head_gradient);
  add_sum(ctx, losses, args.loss);
}

void Mixtral::final_norm(Ctx& ctx, const Tensor& h, const Tensor& normed, const Tensor& rstd) const {
  rms_norm_forward(ctx, {.x = h,
                         .weight = *WeightUse(ctx, state_, params_.final_norm),
                         .eps = config_.rms_norm_eps,
                         .y = normed,
                         .rstd = rstd});
}

void Mixtral::head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const {
  const Frame frame(ctx);
  const Tensor normed = push(ctx, "final norm", h.shape), rstd = push_statistics(ctx, "final rstd", {h.rows()});
  final_norm(ctx, h, normed, rstd);
  linear(ctx, {params_.lm_head, "LM head"}, normed, logits);
}

AttentionShape Mixtral::attention_shape(const Batch& batch) const {
  return {.q_heads = config_.num_attention_heads,
          .kv_heads = config_.num_key_value_heads,
          .head_dim = config_.head_dim,
          .window = config_.sliding_window,
          .doc_offsets = batch.doc_offsets,
          .host_doc_offsets = batch.host_doc_offsets};
}

WeightGradient Mixtral::weight_gradient(int param) const {
  const State::Gradient gradient = state_.gradient(param);
  return {gradient.tensor, gradient.accumulate};
}

void Mixtral::linear(Ctx& ctx, const Projection& p, const Tensor& x, const Tensor& y) const {
  const Range range(ctx, p.name);
  recipe_.linear(ctx, x, *WeightUse(ctx, state_, p.param), y);
}

void Mixtral::linear_backward(Ctx& ctx, const Projection& p, Recipe::LinearBackward args) const {
  const Range range(ctx, p.name);
  const WeightUse weight(ctx, state_, p.param);
  args.weight = *weight;
  args.dweight = weight_gradient(p.param);
  recipe_.linear_backward(ctx, args);
  if (args.dweight.tensor) state_.notify(p.param);
}

void Mixtral::norm_backward(Ctx& ctx, int param, RmsNormBackward args) const {
  const WeightUse weight(ctx, state_, param);
  const WeightGradient gradient = weight_gradient(param);
  args.weight = *weight;
  args.dweight = gradient.tensor;
  args.accumulate = gradient.accumulate;
  rms_norm_backward(ctx, args);
  if (gradient.tensor) state_.notify(param);
}

}  // namespace mixtune
