// CPU twins of attention.h: blocks of queries against all the keys they see, as serial matrix products, documents and
// heads over threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/cpu_math.h"
#include "kernels/gemm/gemm_cpu.h"

namespace mixtune::cpu {

constexpr int64_t kQueryBlock = 64;

// Rows of a block's scores are padded to this many columns, so that loops over a row have no remainder.
constexpr int64_t kScoreLanes = 16;

constexpr int64_t score_stride(int64_t keys) {
  return (keys + kScoreLanes - 1) / kScoreLanes * kScoreLanes;
}

// Queries [q0, q0 + queries) of a document and the keys [k0, k0 + keys) that at least one of them sees, as rows of T.
struct AttentionBlock {
  int64_t q0, queries, k0, keys;

  int64_t stride() const { return score_stride(keys); }  // of its scores
};

inline AttentionBlock attention_block(int64_t doc_begin, int64_t doc_end, int64_t q0, int64_t window) {
  const int64_t queries = std::min(kQueryBlock, doc_end - q0);
  const int64_t k0 = window > 0 ? std::max(doc_begin, q0 - window + 1) : doc_begin;
  return {q0, queries, k0, q0 + queries - k0};
}

// The keys of query i of a block, as a range of the block's columns.
struct KeyRange {
  int32_t begin, end;
};
inline KeyRange keys_seen(const AttentionBlock& block, int64_t i, int64_t window) {
  const int64_t end = block.q0 + i + 1 - block.k0;
  return {static_cast<int32_t>(window > 0 ? std::max<int64_t>(0, end - window) : 0), static_cast<int32_t>(end)};
}

// Writes a block's scores before scaling: Q K^T, [queries, keys].
template <class S>
void multiply_keys(const AttentionBlock& block, const S* queries, const S* keys, int64_t width, int64_t d, S* scores) {
  multiply_serial(Product<S>{.m = block.queries,
                             .n = block.keys,
                             .k = d,
                             .a = queries + block.q0 * width,
                             .lda = width,
                             .trans_a = false,
                             .b = keys + block.k0 * width,
                             .ldb = width,
                             .trans_b = true,
                             .c = scores,
                             .ldc = block.stride(),
                             .accumulate = false});
}

// Softmax in place of one query's scaled scores over the keys it sees, zero elsewhere. Returns log-sum-exp.
template <class S>
S softmax_row(S* scores, int64_t stride, KeyRange seen, S scale) {
  const S highest = max_of(scores + seen.begin, seen.end - seen.begin);
  S sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int32_t j = 0; j < static_cast<int32_t>(stride); ++j) {
    const S p = cpu::exp((scores[j] - highest) * scale);
    scores[j] = j >= seen.begin && j < seen.end ? p : S(0);
    sum += scores[j];
  }
  const S inverse = 1 / sum;
  for (int64_t j = 0; j < stride; ++j) scores[j] *= inverse;
  return highest * scale + std::log(sum);
}

inline int64_t longest_document(const AttentionShape& shape) {
  const int32_t* offsets = shape.host_doc_offsets.as<int32_t>();
  int64_t longest = 0;
  for (int64_t d = 0; d + 1 < shape.host_doc_offsets.rows(); ++d)
    longest = std::max<int64_t>(longest, offsets[d + 1] - offsets[d]);
  return longest;
}

template <class S>
void clear_dead_rows(const AttentionShape& shape, const Tensor& x) {
  const int64_t live = shape.host_doc_offsets.as<int32_t>()[shape.host_doc_offsets.rows() - 1];
  std::fill(x.as<S>() + live * x.row_elements(), x.as<S>() + x.elements(), S(0));
}

// One head, or key-value head, of the document of rows [begin, end).
struct DocumentHead {
  int64_t begin, end, head;
};

template <class S>
// NOLINTNEXTLINE(bugprone-easily-swappable-parameters): the op has checked their shapes.
void attention_forward_head(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse,
                            const DocumentHead& one, S* scores) {
  const auto [begin, end, head] = one;
  const int64_t d = shape.head_dim, width = qkv.shape[1];
  const S scale = 1 / std::sqrt(static_cast<S>(d));
  const S* q = qkv.as<S>() + head * d;
  const S* k = qkv.as<S>() + (shape.q_heads + head / (shape.q_heads / shape.kv_heads)) * d;
  const S* v = k + shape.kv_heads * d;
  for (int64_t q0 = begin; q0 < end; q0 += kQueryBlock) {
    const AttentionBlock block = attention_block(begin, end, q0, shape.window);
    multiply_keys(block, q, k, width, d, scores);
    for (int64_t i = 0; i < block.queries; ++i)
      lse.as<S>()[(q0 + i) * shape.q_heads + head] =
          softmax_row(scores + i * block.stride(), block.stride(), keys_seen(block, i, shape.window), scale);
    multiply_serial(Product<S>{.m = block.queries,
                               .n = d,
                               .k = block.keys,
                               .a = scores,
                               .lda = block.stride(),
                               .trans_a = false,
                               .b = v + block.k0 * width,
                               .ldb = width,
                               .trans_b = false,
                               .c = out.as<S>() + q0 * shape.q_heads * d + head * d,
                               .ldc = shape.q_heads * d,
                               .accumulate = false});
  }
}

template <class S>
void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  const int64_t docs = shape.host_doc_offsets.rows() - 1;
  const int32_t* offsets = shape.host_doc_offsets.as<int32_t>();
  const Stack::Frame frame(ctx.stack);
  const Tensor scratch = ctx.stack.push(
      "attention scores", {omp_get_max_threads(), kQueryBlock, score_stride(longest_document(shape))}, qkv.dtype);
  clear_dead_rows<S>(shape, out);
  ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t doc = 0; doc < docs; ++doc)
    for (int64_t head = 0; head < shape.q_heads; ++head)
      error.run([&] {
        attention_forward_head<S>(shape, qkv, out, lse, {offsets[doc], offsets[doc + 1], head},
                                  scratch.as<S>() + omp_get_thread_num() * scratch.row_elements());
      });
  error.rethrow();
}

// A query's row of scores that become probabilities p, and of dprobabilities dp that become dscores = p * (dp - sum_j
// p_j dp_j) * scale, both zero for keys it does not see. `delta` is that sum: dout . out.
template <class S>
struct SoftmaxRow {
  S *p, *dp;
  int64_t stride;
  KeyRange seen;
  S scale, lse, delta;
};
template <class S>
void softmax_backward_row(const SoftmaxRow<S>& row) {
  S *p = row.p, *dp = row.dp;
  const S scale = row.scale, lse = row.lse, delta = row.delta;
  const KeyRange seen = row.seen;
#pragma omp simd
  for (int32_t j = 0; j < static_cast<int32_t>(row.stride); ++j) {
    const bool sees = j >= seen.begin && j < seen.end;
    const S probability = cpu::exp(p[j] * scale - lse);
    const S dscore = probability * (dp[j] - delta) * scale;
    p[j] = sees ? probability : S(0);
    dp[j] = sees ? dscore : S(0);
  }
}

// Adds one block of one query head to dk and dv, and writes its dq.
template <class S>
void attention_backward_block(const AttentionShape& shape, const AttentionBackward& args, const AttentionBlock& block,
                              int64_t head, S* p, S* dp) {
  const int64_t d = shape.head_dim, width = args.qkv.shape[1], out_width = shape.q_heads * d;
  const S scale = 1 / std::sqrt(static_cast<S>(d));
  const int64_t kv_column = (shape.q_heads + head / (shape.q_heads / shape.kv_heads)) * d;
  const S *q = args.qkv.as<S>() + head * d, *k = args.qkv.as<S>() + kv_column, *v = k + shape.kv_heads * d;
  S *dq = args.dqkv.as<S>() + head * d, *dk = args.dqkv.as<S>() + kv_column, *dv = dk + shape.kv_heads * d;
  const S *out = args.out.as<S>() + head * d, *dout = args.dout.as<S>() + head * d;

  multiply_keys(block, q, k, width, d, p);
  const Product<S> dprobabilities = {.m = block.queries,
                                     .n = block.keys,
                                     .k = d,
                                     .a = dout + block.q0 * out_width,
                                     .lda = out_width,
                                     .trans_a = false,
                                     .b = v + block.k0 * width,
                                     .ldb = width,
                                     .trans_b = true,
                                     .c = dp,
                                     .ldc = block.stride(),
                                     .accumulate = false};
  multiply_serial(dprobabilities);
  for (int64_t i = 0; i < block.queries; ++i) {
    const int64_t t = block.q0 + i;
    S delta = 0;
#pragma omp simd reduction(+ : delta)
    for (int64_t c = 0; c < d; ++c) delta += out[t * out_width + c] * dout[t * out_width + c];
    softmax_backward_row(SoftmaxRow<S>{.p = p + i * block.stride(),
                                       .dp = dp + i * block.stride(),
                                       .stride = block.stride(),
                                       .seen = keys_seen(block, i, shape.window),
                                       .scale = scale,
                                       .lse = args.lse.as<S>()[t * shape.q_heads + head],
                                       .delta = delta});
  }
  // dK += dS^T Q and dV += P^T dO, [keys, d]; dQ = dS K, [queries, d].
  Product<S> to_keys = {.m = block.keys,
                        .n = d,
                        .k = block.queries,
                        .a = dp,
                        .lda = block.stride(),
                        .trans_a = true,
                        .b = q + block.q0 * width,
                        .ldb = width,
                        .trans_b = false,
                        .c = dk + block.k0 * width,
                        .ldc = width,
                        .accumulate = true};
  multiply_serial(to_keys);
  to_keys.a = p;
  to_keys.b = dout + block.q0 * out_width;
  to_keys.ldb = out_width;
  to_keys.c = dv + block.k0 * width;
  multiply_serial(to_keys);
  multiply_serial(Product<S>{.m = block.queries,
                             .n = d,
                             .k = block.keys,
                             .a = dp,
                             .lda = block.stride(),
                             .trans_a = false,
                             .b = k + block.k0 * width,
                             .ldb = width,
                             .trans_b = false,
                             .c = dq + block.q0 * width,
                             .ldc = width,
                             .accumulate = false});
}

// Computes one key-value head of the document [begin, end): its query heads add to dK and dV in a fixed order.
template <class S>
void attention_backward_group(const AttentionShape& shape, const AttentionBackward& args, const DocumentHead& one, S* p,
                              S* dp) {
  const auto [begin, end, kv_head] = one;
  const int64_t d = shape.head_dim, width = args.qkv.shape[1], group = shape.q_heads / shape.kv_heads;
  for (int64_t t = begin; t < end; ++t) {
    S* dk = args.dqkv.as<S>() + t * width + (shape.q_heads + kv_head) * d;
    std::fill_n(dk, d, S(0));
    std::fill_n(dk + shape.kv_heads * d, d, S(0));
  }
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int64_t q0 = begin; q0 < end; q0 += kQueryBlock)
      attention_backward_block(shape, args, attention_block(begin, end, q0, shape.window), head, p, dp);
}

template <class S>
void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  const int64_t docs = shape.host_doc_offsets.rows() - 1;
  const int32_t* offsets = shape.host_doc_offsets.as<int32_t>();
  const Stack::Frame frame(ctx.stack);
  const Tensor scratch =
      ctx.stack.push("attention gradients",
                     {omp_get_max_threads(), 2, kQueryBlock, score_stride(longest_document(shape))}, args.qkv.dtype);
  clear_dead_rows<S>(shape, args.dqkv);
  ParallelError error;
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t doc = 0; doc < docs; ++doc)
    for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head)
      error.run([&] {
        S* p = scratch.as<S>() + omp_get_thread_num() * scratch.row_elements();
        attention_backward_group(shape, args, {offsets[doc], offsets[doc + 1], kv_head}, p,
                                 p + scratch.row_elements() / 2);
      });
  error.rethrow();
}

}  // namespace mixtune::cpu
