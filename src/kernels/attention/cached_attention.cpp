#include "kernels/attention/cached_attention.h"

#include "kernels/attention/cached_attention_cpu.h"
#include "kernels/attention/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

void check_tokens(const CachedTokens& tokens) {
  const int64_t rows = tokens.qkv.rows(), width = tokens.qkv.shape[1], kv_heads = tokens.keys.shape[1],
                d = tokens.keys.shape[3];
  MT_CHECK(tokens.keys.shape == tokens.values.shape);
  MT_CHECK(tokens.keys.dtype == tokens.qkv.dtype && tokens.values.dtype == tokens.qkv.dtype);
  MT_CHECK(width % d == 0 && width / d > 2 * kv_heads && width / d % kv_heads == 0);
  MT_CHECK(tokens.sequences.rows() == rows && tokens.positions.rows() == rows && tokens.live <= rows);
}

}  // namespace

void append_to_cache(Ctx& ctx, const CachedTokens& tokens) {
  check_tokens(tokens);
  on_device(
      ctx, "attention cache", tokens.qkv.dtype, [&]<class S>(S) { cpu::append_to_cache<S>(tokens); },
      [&] { cuda::append_to_cache(ctx, tokens); });
}

void cached_attention(Ctx& ctx, const CachedTokens& tokens, int64_t window, const Tensor& out) {
  check_tokens(tokens);
  const int64_t dead = out.rows() - tokens.live;
  MT_CHECK(out.shape ==
           Shape({tokens.qkv.rows(), tokens.qkv.shape[1] - 2 * tokens.keys.shape[1] * tokens.keys.shape[3]}));
  MT_CHECK(out.dtype == tokens.qkv.dtype);
  if (dead > 0) zero(ctx, out.slice(tokens.live, dead));
  on_device(
      ctx, "attention", tokens.qkv.dtype, [&]<class S>(S) { cpu::cached_attention<S>(ctx, tokens, window, out); },
      [&] { cuda::cached_attention(ctx, tokens, window, out); });
}

}  // namespace mixtune
