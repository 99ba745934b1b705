// Causal self-attention over packed documents, with grouped-query heads and an optional sliding window.
#pragma once

#include <string>

#include "tensor/ctx.h"

namespace mixtune {

constexpr int64_t kMaxGpuHeadDim = 256;  // of a GPU's kernels; the CPU's take any

// The shape that forward and backward share. qkv [T, (q_heads + 2 kv_heads) * D] holds a token's query heads, key
// heads, value heads; query head h reads key-value head h / (q_heads / kv_heads). Query i of a document sees its keys j
// with i - window < j <= i (window 0: all j <= i). Scores are scaled by 1 / sqrt(D). Document d is rows
// [doc_offsets[d], doc_offsets[d + 1]); doc_offsets [docs + 1] int32 is on the device, host_doc_offsets its copy for
// the host (on the CPU: the same tensor).
struct AttentionShape {
  int64_t q_heads, kv_heads, head_dim;
  int64_t window;
  Tensor doc_offsets, host_doc_offsets;
};

// Writes out [T, q_heads * D] and lse [T, q_heads], the log-sum-exp of each query's scaled scores, which a GPU may
// order otherwise for its backward pass. Rows in no document: out = 0, lse is not written.
void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse);

// Writes dqkv, the gradient of qkv (zero for rows in no document), from dout and what forward saved.
struct AttentionBackward {
  Tensor qkv, out, lse, dout, dqkv;
};
void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args);

// The name of the kernels that attention runs: "cuDNN 9.19.0", "own kernels".
std::string attention_backend(Ctx& ctx, const AttentionShape& shape, DType dtype);

}  // namespace mixtune
