// Token embedding.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// y[t] = table[ids[t]]. ids [T] int32, table [V, H], y [T, H].
void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y);

// dtable[v] = sum over t with ids[t] = v of dy[t], in the order of t; or += with accumulate.
void embedding_backward(Ctx& ctx, const Tensor& ids, const Tensor& dy, const Tensor& dtable, bool accumulate);

}  // namespace mixtune
