// RaggedOffsets: what cuDNN's plans for documents of any length read besides their tensors.
#pragma once

#include "kernels/attention/attention.h"

namespace mixtune::cuda {

// Each document's length, and where it begins in a tensor, in elements. A plan of n documents gets those of the batch
// and empty ones behind them.
struct RaggedOffsets {
  Tensor lengths;               // int32 [n]
  Tensor qkv, out, kv, scores;  // int64 [n + 1]: for rows as wide as qkv, out, the keys alone, lse
};

// Pushes the offsets on ctx.stack: the caller has a frame.
RaggedOffsets make_ragged_offsets(Ctx& ctx, const AttentionShape& shape, int64_t n);

// Copies dk and dv [rows, kv_heads * D] into the first rows of dqkv, bf16. D is a multiple of 8.
void copy_kv_gradients(Ctx& ctx, const Tensor& dk, const Tensor& dv, const Tensor& dqkv);

}  // namespace mixtune::cuda
