// Batch: the model's only input. Built in src/data, the one place that shifts targets.
#pragma once

#include "kernels/cross_entropy.h"
#include "tensor/tensor.h"

namespace mixtune {

// T packed tokens, T a multiple of kRowAlignment. Rows [live_tokens, T) are a dead tail: id 0, target -100, position 0,
// in no document; the model routes them nowhere and counts them nowhere.
struct Batch {
  Tensor ids;          // [T] int32, in [0, vocab)
  Tensor targets;      // [T] int32: the token after this one in its document, or -100
  Tensor positions;    // [T] int32: from 0 in each document
  Tensor doc_offsets;  // [D + 1] int32: document d is rows [doc_offsets[d], doc_offsets[d + 1]); last = live_tokens
  int64_t live_tokens = 0;
  int64_t target_tokens = 0;  // targets that are not -100
};

}  // namespace mixtune
