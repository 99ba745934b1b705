// Batch: the model's only input. BatchBuilder makes it; labels are shifted in src/data alone.
#pragma once

#include "kernels/embedding.h"

namespace mixtune {

// T packed tokens, T a multiple of kRowAlignment (BatchRoom may say otherwise), and the N of their rows that have a
// target. Rows [live_tokens, T) are a dead tail: id 0, position 0, no target, in no document; the model routes them
// nowhere and counts them nowhere.
struct Batch {
  Tensor ids;          // [T] int32, in [0, vocab)
  Tensor positions;    // [T] int32: from 0 in each document, or from where its sequence goes on
  Tensor target_rows;  // [N] int32, ascending
  Tensor targets;      // [N] int32: the token after row target_rows[i] in its document
  Tensor weights;      // [N] fp32: the targets' (data/weights.h); empty: all are 1
  Tensor doc_offsets;  // [D + 1] int32: document d is rows [doc_offsets[d], doc_offsets[d + 1]); last = live_tokens
  IdIndex rows_by_id;  // of the live rows
  Tensor host_doc_offsets;  // doc_offsets for the host; the same tensor where the batch is in host memory
  Tensor sequences;         // [T] int32: that of the model's cache which the token is added to; empty: no token is
  bool continues = false;   // a document has earlier tokens, in the cache alone
  int64_t live_tokens = 0;
  int64_t first_token = 0;  // row 0's number among the live tokens of the step's global batch, in the order of rows
  int64_t step_tokens = 0;  // live tokens of this accumulation step, on all ranks: what the router's loss is a mean of

  int64_t target_tokens() const { return targets.rows(); }
};

// The batch on the device of ctx. On the CPU it is `host` itself; on a GPU it is pushed on the stack and copied in the
// order of its stream, so that `host` must stay as it is until a wait.
Batch to_device(Ctx& ctx, const Batch& host);

}  // namespace mixtune
