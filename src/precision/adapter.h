// Adapter: the low-rank pairs beside a weight of the layers (LoRA, Hu et al. 2021): y = x W^T + s (x A^T) B^T.
//
// Products are in the dtype of their operands, whatever the recipe; u = x A^T [T, m r] is rounded to it once, and so is
// s B. With dropout x has lost some of its elements here, the same ones for all modules, and s B stands for what is
// left.
#pragma once

#include "kernels/adapter.h"
#include "kernels/dropout.h"
#include "kernels/embedding.h"
#include "kernels/gemm/gemm.h"
#include "precision/weight_gradient.h"

namespace mixtune {

// Empty: the weight has none.
struct Adapter {
  Tensor a, b;  // of all modules, as kernels/adapter.h has them
  AdaptedModules modules;
  double scale = 1;
  WeightGradient da = {}, db = {};  // for backward
  Tensor u = {};                    // [T, m r], memory that forward leaves u in; empty: backward makes it again
  Tensor v = {};                    // [T, m r], memory for dy s B, which both gradients read
  Dropout dropout = {};             // of x

  explicit operator bool() const { return static_cast<bool>(a); }
  double scale_of_left() const { return scale * dropout.factor(); }  // s, of what dropout leaves
  // That of some of the rows; its v is the first of v's, and it keeps no u.
  Adapter of_rows(int64_t first, int64_t rows) const;
  // The part of one expert, still with that dimension, and for its rows alone.
  Adapter of_expert(int64_t e, int64_t first_row, int64_t rows) const;
};

// Each of these two writes a result that the weight's own product is then added to, which reads it beside its work: a
// product that came after would read and write all of it by itself. They return whether they did: not where the weight
// has no adapter.
//
// y = the adapter's part. x [T, K], of which the adapter drops out what it does; y [T, N]; with groups the rows of
// experts.
struct AdapterForward {
  Tensor x, y;
  const RowGroups* groups = nullptr;
};
bool write_adapter(Ctx& ctx, const Adapter& adapter, const AdapterForward& args);
// Only u, into adapter.u, for who adds the rest; y is not read.
void write_inner(Ctx& ctx, const Adapter& adapter, const AdapterForward& args);

// dx = the adapter's part; and adapter.v, for adapter_weight_gradient.
struct AdapterDataGradient {
  Tensor dy, dx;
  const RowGroups* groups = nullptr;
};
bool write_adapter_data_gradient(Ctx& ctx, const Adapter& adapter, const AdapterDataGradient& args);
// Only adapter.v; dx is not read.
void write_inner_gradient(Ctx& ctx, const Adapter& adapter, const AdapterDataGradient& args);

// da = or += v^T x; db = or += s dy^T u, of adapter.u where that is there. x is not read where nothing needs it.
struct AdapterWeightGradient {
  Tensor x, dy;
  const RowGroups* groups = nullptr;
};
void adapter_weight_gradient(Ctx& ctx, const Adapter& adapter, const AdapterWeightGradient& args);

// Beside a router's weight, whose product, and the gradients from it, are not rounded (kernels/moe/router.h): these
// add, and u and v stay in y's dtype, fp32 on a GPU.
//
// y += the adapter's part.
void add_router_adapter(Ctx& ctx, const Adapter& adapter, const AdapterForward& args);
// dx += the adapter's part; da and db = or += theirs.
struct RouterAdapterBackward {
  Tensor x, dy, dx;
};
void router_adapter_backward(Ctx& ctx, const Adapter& adapter, const RouterAdapterBackward& args);

// Beside an embedding's table, of whose input, one-hot rows, nothing is dropped out: here u is rows of B [V, r], and
// s A [r, H] is what is rounded.
//
// y += the adapter's part: y[t] += B[ids[t]] (s A). ids [T] int32, y [T, H].
void add_embedding_adapter(Ctx& ctx, const Adapter& adapter, const Tensor& ids, const Tensor& y);
// da and db = or += theirs. The rows of dy that are in no document are 0.
struct EmbeddingAdapterBackward {
  Tensor ids;
  IdIndex rows_by_id;
  Tensor dy;
};
void embedding_adapter_backward(Ctx& ctx, const Adapter& adapter, const EmbeddingAdapterBackward& args);

}  // namespace mixtune
