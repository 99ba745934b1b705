// The head, forward and backward: the final norm, the LM head and the loss.
#include <algorithm>

#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/moe/permute.h"
#include "kernels/reduce.h"
#include "model/mixtral.h"

namespace mixtune {

void Mixtral::head_loss(Ctx& ctx, const Batch& batch, const HeadLoss& args) const {
  const int64_t n = batch.target_tokens(), h = config_.hidden_size;
  const bool backward = static_cast<bool>(args.dh);
  const Frame frame(ctx);
  const Range range(ctx, "LM head and loss");
  const Tensor x = activations_.push(ctx, "rows with a target", {n, h});
  const Tensor normed = activations_.push(ctx, "final norm", {n, h}),
               rstd = activations_.push_statistics(ctx, "final rstd", {n});
  const Tensor dnormed = backward ? activations_.push(ctx, "final norm gradient", {n, h}) : Tensor{};
  permute_rows(ctx, args.h, batch.target_rows, 1, x);
  norm(ctx, params_.final_norm, {.x = x, .y = normed, .rstd = rstd});
  chunked_loss(ctx, {normed, batch.targets, batch.weights, args.loss, dnormed, args.scale,
                     head_dropout(ctx, batch, args.noise)});
  if (!backward) return;

  const Tensor dx = activations_.push(ctx, "gradient of rows with a target", {n, h});
  zero(ctx, dx);
  norm_backward(ctx, params_.final_norm, {.r = x, .rstd = rstd, .dy = dnormed, .dr = dx});
  const Tensor place = ctx.stack.push("place of each row", {args.h.rows(), 1}, DType::kI32);
  permute_invert(ctx, batch.target_rows, place);
  unpermute_rows(ctx, dx, place, {}, args.dh);
}

namespace {

// How many bytes of logits exist at a time: enough rows to fill the matrix products, few enough that they stay small.
int64_t logits_chunk_bytes(const Ctx& ctx) {
  return ctx.like_gpu() ? int64_t{512} << 20 : int64_t{16} << 20;
}

// Where a gradient is added up over chunks of rows: in fp32, on the stack, where the gradient itself is held in less,
// as rounding each chunk's sum would make an error that grows with the number of chunks. finish_sum ends that.
WeightGradient begin_sum(Ctx& ctx, const WeightGradient& own) {
  if (!own.tensor || own.tensor.dtype == statistics_dtype(own.tensor.dtype)) return own;
  const Tensor sum = ctx.stack.push("LM head gradient in fp32", own.tensor.shape, statistics_dtype(own.tensor.dtype));
  if (own.accumulate) cast(ctx, own.tensor, sum);
  return {sum, own.accumulate};
}

void finish_sum(Ctx& ctx, const WeightGradient& own, const WeightGradient& sum) {
  if (!own.tensor || own.tensor.dtype == sum.tensor.dtype) return;
  const Range range(ctx, "LM head gradient, rounded");
  cast(ctx, sum.tensor, own.tensor);
}

}  // namespace

void Mixtral::lm_head(Ctx& ctx, const Adapter& adapter, const Tensor& normed, const Tensor& logits) const {
  const Range range(ctx, "LM head");
  const WeightUse weight(ctx, state_, params_.lm_head);
  const bool adapted = write_adapter(ctx, adapter, {.x = normed, .y = logits});
  plain_linear(ctx, {.x = normed, .weight = *weight, .y = logits, .accumulate_y = adapted, .live = normed.rows()});
}

void Mixtral::chunk_backward(Ctx& ctx, Adapter adapter, const ChunkBackward& args) const {
  const Range range(ctx, "LM head, backward");
  const WeightUse weight(ctx, state_, params_.lm_head);
  adapter.da = args.sums.a;
  adapter.db = args.sums.b;
  const bool adapted = write_adapter_data_gradient(ctx, adapter, {.dy = args.dlogits, .dx = args.dx});
  plain_linear_backward(ctx, {.x = args.x,
                              .weight = *weight,
                              .dy = args.dlogits,
                              .dx = args.dx,
                              .accumulate_dx = adapted,
                              .dweight = args.sums.weight,
                              .live = args.x.rows()});
  adapter_weight_gradient(ctx, adapter, {.x = args.x, .dy = args.dlogits});
  for (WeightGradient* sum : {&args.sums.weight, &args.sums.a, &args.sums.b}) sum->accumulate = true;
}

Dropout Mixtral::head_dropout(Ctx& ctx, const Batch& batch, const std::optional<uint64_t>& noise) const {
  if (params_.adapter_dropout == 0 || !noise || !params_.head_adapter.is_set()) return {};
  const Tensor numbers = ctx.stack.push("row numbers", {batch.target_tokens()}, DType::kI64);
  number_rows(ctx, batch.target_rows, batch.first_token, numbers);
  const uint64_t after_layers = random_bits(*noise, static_cast<uint64_t>(config_.num_hidden_layers));
  return {.share = params_.adapter_dropout, .key = draw_key(after_layers, Draw::kHeadDropout), .numbers = numbers};
}

void Mixtral::chunked_loss(Ctx& ctx, const ChunkedLoss& args) const {
  const int64_t rows = args.normed.rows(), vocab = config_.vocab_size;
  const DType dtype = activations_.dtype, logits_dtype = statistics_dtype(dtype);
  const int64_t row_bytes = vocab * static_cast<int64_t>(dtype_size(logits_dtype));
  const int64_t chunk = std::max(kRowAlignment, logits_chunk_bytes(ctx) / row_bytes / kRowAlignment * kRowAlignment);
  const Shape shape = {std::min(chunk, rows), vocab};
  const Tensor losses = ctx.stack.push("token losses", {rows}, DType::kF64);
  const Tensor all_logits = ctx.stack.push("logits", shape, logits_dtype);
  const Tensor all_dlogits = dtype == logits_dtype ? all_logits : ctx.stack.push("logits gradient", shape, dtype);
  AdapterUse adapter(ctx, state_, params_.head_adapter, params_.adapter_scale, args.dropout);
  if (args.dnormed) adapter.push_v(ctx, all_dlogits);
  const HeadGradients own = {weight_gradient(params_.lm_head), (*adapter).da, (*adapter).db};
  HeadGradients sums;
  if (args.dnormed) sums = {begin_sum(ctx, own.weight), begin_sum(ctx, own.a), begin_sum(ctx, own.b)};
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const Tensor logits = all_logits.slice(0, count), x = args.normed.slice(begin, count);
    const Tensor dlogits = args.dnormed ? all_dlogits.slice(0, count) : Tensor{};
    const Adapter pair = (*adapter).of_rows(begin, count);
    lm_head(ctx, pair, x, logits);
    cross_entropy(ctx, {.logits = logits,
                        .targets = args.targets.slice(begin, count),
                        .losses = losses.slice(begin, count),
                        .dlogits = dlogits,
                        .weights = args.weights ? args.weights.slice(begin, count) : Tensor{},
                        .scale = args.scale});
    if (dlogits)
      chunk_backward(ctx, pair, {.x = x, .dlogits = dlogits, .dx = args.dnormed.slice(begin, count), .sums = sums});
  }
  if (args.dnormed && rows > 0) {
    finish_sum(ctx, own.weight, sums.weight);
    finish_sum(ctx, own.a, sums.a);
    finish_sum(ctx, own.b, sums.b);
    if (own.weight.tensor) state_.gradients().notify(params_.lm_head);
    adapter.notify();
  }
  add_sum(ctx, losses, args.loss);
}

void Mixtral::head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const {
  const Frame frame(ctx);
  const Tensor normed = activations_.push(ctx, "final norm", h.shape),
               rstd = activations_.push_statistics(ctx, "final rstd", {h.rows()});
  norm(ctx, params_.final_norm, {.x = h, .y = normed, .rstd = rstd});
  lm_head(ctx, *AdapterUse(ctx, state_, params_.head_adapter, params_.adapter_scale, {}), normed, logits);
}

}  // namespace mixtune
