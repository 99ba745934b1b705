// Documents as cuDNN reads them: where each begins in a tensor, in elements, and its length.
#pragma once

#include "kernels/attention.h"

namespace mixtune::cuda {

// For a plan of n documents, those of the batch and empty ones behind them.
struct RaggedOffsets {
  Tensor lengths;               // int32 [n]
  Tensor qkv, out, kv, scores;  // int64 [n + 1]: of rows as wide as qkv, as out, as the keys alone, as lse
};

// On ctx.stack: the caller has a frame.
RaggedOffsets make_ragged_offsets(Ctx& ctx, const AttentionShape& shape, int64_t n);

}  // namespace mixtune::cuda
