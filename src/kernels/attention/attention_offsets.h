// What cuDNN's plans for documents of any length need beside them.
#pragma once

#include "kernels/attention/attention.h"

namespace mixtune::cuda {

// Where each document begins in a tensor, in elements, and its length. For a plan of n documents: those of the batch,
// and empty ones behind them.
struct RaggedOffsets {
  Tensor lengths;               // int32 [n]
  Tensor qkv, out, kv, scores;  // int64 [n + 1]: of rows as wide as qkv, as out, as the keys alone, as lse
};

// On ctx.stack: the caller has a frame.
RaggedOffsets make_ragged_offsets(Ctx& ctx, const AttentionShape& shape, int64_t n);

// dk and dv [rows, kv_heads * D] into the first rows of dqkv, bf16. D is a multiple of 8.
void copy_kv_gradients(Ctx& ctx, const Tensor& dk, const Tensor& dv, const Tensor& dqkv);

}  // namespace mixtune::cuda
