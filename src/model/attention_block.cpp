// The attention block, forward and backward: x + attention(norm(x)), and the norm that the experts read.
#include "kernels/attention/cached_attention.h"
#include "kernels/rope.h"
#include "model/mixtral.h"

namespace mixtune {

void Mixtral::attention_block(Ctx& ctx, const Layer& layer, const Tensor& normed) const {
  const LayerParams& p = layer.params;
  const LayerSaved& saved = layer.saved;
  const int64_t live = layer.batch.live_tokens;
  const Frame frame(ctx);
  const Tensor projected = activations_.push(ctx, "attention projection", saved.input.shape);
  norm(ctx, p.input_norm, {.x = saved.input, .y = normed, .rstd = saved.input_rstd});
  linear(ctx, {p.qkv, p.qkv_adapter, dropout(layer, Draw::kQkvDropout), saved.qkv_inner, "qkv"},
         {.x = normed, .y = saved.qkv, .live = live});
  turn(ctx, layer, saved.qkv, false);
  attend(ctx, layer);
  linear(ctx, {p.attention_out, p.out_adapter, dropout(layer, Draw::kOutDropout), saved.out_inner, "attention output"},
         {.x = saved.attention, .y = projected, .live = live});
  norm(ctx, p.post_norm,
       {.x = saved.input, .delta = projected, .r = saved.middle, .y = normed, .rstd = saved.middle_rstd});
}

void Mixtral::attention_block_again(Ctx& ctx, const Layer& layer) const {
  const Frame frame(ctx);
  attention_block(ctx, layer, activations_.push(ctx, "residual norm", layer.saved.input.shape));
}

void Mixtral::attention_block_backward(Ctx& ctx, const Layer& layer, const Tensor& dh) const {
  const LayerParams& p = layer.params;
  const LayerSaved& saved = layer.saved;
  const int64_t live = layer.batch.live_tokens;
  const Frame frame(ctx);
  const Tensor dattention = activations_.push(ctx, "attention output gradient", saved.attention.shape);
  const Tensor dqkv = activations_.push(ctx, "qkv gradient", saved.qkv.shape);
  linear_backward(ctx,
                  {p.attention_out, p.out_adapter, dropout(layer, Draw::kOutDropout), saved.out_inner,
                   "attention output, backward"},
                  {.x = saved.attention, .dy = dh, .dx = dattention, .live = live});
  attention_backward(ctx, attention_shape(layer.batch),
                     {.qkv = saved.qkv, .out = saved.attention, .lse = saved.lse, .dout = dattention, .dqkv = dqkv});
  turn(ctx, layer, dqkv, true);
  const Tensor normed = activations_.push(ctx, "input norm", dh.shape);
  const Tensor dnormed = activations_.push(ctx, "input norm gradient", dh.shape);
  norm_again(ctx, p.input_norm, saved.input, saved.input_rstd, normed);
  linear_backward(ctx, {p.qkv, p.qkv_adapter, dropout(layer, Draw::kQkvDropout), saved.qkv_inner, "qkv, backward"},
                  {.x = normed, .dy = dqkv, .dx = dnormed, .live = live});
  norm_backward(ctx, p.input_norm, {.r = saved.input, .rstd = saved.input_rstd, .dy = dnormed, .dr = dh});
}

void Mixtral::attend(Ctx& ctx, const Layer& layer) const {
  const Batch& batch = layer.batch;
  const LayerSaved& saved = layer.saved;
  if (batch.sequences) {
    const KvCache::Layer cache = activations_.cache->layer(layer.index);
    const CachedTokens tokens = {.qkv = saved.qkv,
                                 .sequences = batch.sequences,
                                 .positions = batch.positions,
                                 .live = batch.live_tokens,
                                 .keys = cache.keys,
                                 .values = cache.values};
    append_to_cache(ctx, tokens);
    if (batch.continues) return cached_attention(ctx, tokens, config_.sliding_window, saved.attention);
  }
  attention_forward(ctx, attention_shape(batch), saved.qkv, saved.attention, saved.lse);
}

void Mixtral::turn(Ctx& ctx, const Layer& layer, const Tensor& qkv, bool inverse) const {
  rope(ctx, {.qkv = qkv,
             .table = layer.rope_table,
             .q_heads = config_.num_attention_heads,
             .kv_heads = config_.num_key_value_heads,
             .inverse = inverse});
}

AttentionShape Mixtral::attention_shape(const Batch& batch) const {
  return {.q_heads = config_.num_attention_heads,
          .kv_heads = config_.num_key_value_heads,
          .head_dim = config_.head_dim,
          .window = config_.sliding_window,
          .doc_offsets = batch.doc_offsets,
          .host_doc_offsets = batch.host_doc_offsets};
}

}  // namespace mixtune
