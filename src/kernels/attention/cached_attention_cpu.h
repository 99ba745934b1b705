// CPU twins of cached_attention.h: a token's queries of one key-value head against all the keys they see, as serial
// matrix products, tokens and heads over threads.
#pragma once

#include "kernels/attention/attention_cpu.h"
#include "kernels/attention/cached_attention.h"

namespace mixtune::cpu {

// Where a head of a sequence begins in keys or values.
inline int64_t cached_head(const Tensor& keys, int64_t sequence, int64_t head) {
  return (sequence * keys.shape[1] + head) * keys.shape[2] * keys.shape[3];
}

template <class S>
void append_to_cache(const CachedTokens& tokens) {
  const int64_t width = tokens.qkv.shape[1], heads = tokens.keys.shape[1], d = tokens.keys.shape[3];
  for (int64_t t = 0; t < tokens.live; ++t) {
    const int64_t sequence = tokens.sequences.as<int32_t>()[t], position = tokens.positions.as<int32_t>()[t];
    MT_CHECK(sequence >= 0 && sequence < tokens.keys.shape[0] && position >= 0 && position < tokens.keys.shape[2]);
    const S* v = tokens.qkv.as<S>() + (t + 1) * width - heads * d;
    const S* k = v - heads * d;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t place = cached_head(tokens.keys, sequence, head) + position * d;
      std::copy_n(k + head * d, d, tokens.keys.as<S>() + place);
      std::copy_n(v + head * d, d, tokens.values.as<S>() + place);
    }
  }
}

// One token's queries of one key-value head. scores: room for those of each query, score_stride(P) apart.
template <class S>
void cached_attention_head(const CachedTokens& tokens, int64_t window, const Tensor& out, int64_t t, int64_t head,
                           S* scores) {
  const int64_t width = tokens.qkv.shape[1], out_width = out.shape[1], d = tokens.keys.shape[3];
  const int64_t group = out_width / d / tokens.keys.shape[1];
  const int64_t position = tokens.positions.as<int32_t>()[t];
  const int64_t begin = window > 0 ? std::max<int64_t>(0, position - window + 1) : 0, seen = position + 1 - begin;
  const int64_t stride = score_stride(seen), queries = head * group * d;
  const int64_t cached = cached_head(tokens.keys, tokens.sequences.as<int32_t>()[t], head) + begin * d;
  multiply_serial(Product<S>{.m = group,
                             .n = seen,
                             .k = d,
                             .a = tokens.qkv.as<S>() + t * width + queries,
                             .lda = d,
                             .trans_a = false,
                             .b = tokens.keys.as<S>() + cached,
                             .ldb = d,
                             .trans_b = true,
                             .c = scores,
                             .ldc = stride,
                             .accumulate = false});
  const S scale = 1 / std::sqrt(static_cast<S>(d));
  for (int64_t query = 0; query < group; ++query)
    softmax_row(scores + query * stride, stride, {0, static_cast<int32_t>(seen)}, scale);
  multiply_serial(Product<S>{.m = group,
                             .n = d,
                             .k = seen,
                             .a = scores,
                             .lda = stride,
                             .trans_a = false,
                             .b = tokens.values.as<S>() + cached,
                             .ldb = d,
                             .trans_b = false,
                             .c = out.as<S>() + t * out_width + queries,
                             .ldc = d,
                             .accumulate = false});
}

template <class S>
void cached_attention(Ctx& ctx, const CachedTokens& tokens, int64_t window, const Tensor& out) {
  const int64_t heads = tokens.keys.shape[1], group = out.shape[1] / tokens.keys.shape[3] / heads;
  const Stack::Frame frame(ctx.stack);
  const Tensor scratch = ctx.stack.push(
      "attention scores", {omp_get_max_threads(), group, score_stride(tokens.keys.shape[2])}, tokens.qkv.dtype);
  ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t t = 0; t < tokens.live; ++t)
    for (int64_t head = 0; head < heads; ++head)
      error.run([&] {
        cached_attention_head<S>(tokens, window, out, t, head,
                                 scratch.as<S>() + omp_get_thread_num() * scratch.row_elements());
      });
  error.rethrow();
}

}  // namespace mixtune::cpu
