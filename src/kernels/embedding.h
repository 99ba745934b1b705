// Token embedding.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// y[t] = table[ids[t]]. ids [T] int32, table [V, H], y [T, H].
void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y);

// The rows of a batch by their token id: id ids[u] stands in rows rows[begin[u]] ... rows[begin[u + 1] - 1], ascending.
// ids [U] is ascending, each id once; begin [U + 1]; rows [live]; all int32.
struct IdIndex {
  Tensor ids, begin, rows;
};

// dtable[v] = sum over the rows t of id v of dy[t], in the order of t, in fp32 (fp64 in the oracle); or += with
// accumulate. Without it, ids that the index lacks get 0. dy [T, H], dtable [V, H].
struct EmbeddingBackward {
  IdIndex index;
  Tensor dy, dtable;
  bool accumulate = false;
};
void embedding_backward(Ctx& ctx, const EmbeddingBackward& args);

}  // namespace mixtune
