#include "precision/adapter.h"

#include "kernels/cast.h"
#include "kernels/fill.h"
#include "kernels/moe/router.h"
#include "kernels/moe/router_noise.h"
#include "tensor/profiler.h"

namespace mixtune {

namespace {

struct Product {
  Tensor left, weight, result;
  const RowGroups* groups;
  bool transposed = false;  // the weight
};

void multiply(Ctx& ctx, const Product& p) {
  if (p.groups)
    grouped_gemm(ctx, {.x = p.left, .w = p.weight, .y = p.result, .groups = *p.groups, .trans_w = p.transposed});
  else
    gemm(ctx, {.a = p.left, .b = p.weight, .c = p.result, .trans_b = p.transposed});
}

struct GradientProduct {
  Tensor dy, x;
  WeightGradient dw;
  const RowGroups* groups;
};

void multiply(Ctx& ctx, const GradientProduct& p) {
  if (p.groups)
    grouped_wgrad(ctx, {.dy = p.dy, .x = p.x, .dw = p.dw.tensor, .groups = *p.groups, .accumulate = p.dw.accumulate});
  else
    gemm(ctx, {.a = p.dy, .b = p.x, .c = p.dw.tensor, .trans_a = true, .accumulate = p.dw.accumulate});
}

// The shape of s B: rows [N] of the weight, columns of all modules.
Shape expanded_shape(const Adapter& adapter, int64_t n) {
  const Shape& a = adapter.a.shape;
  return a.rank() == 2 ? Shape{n, a[0]} : Shape{a[0], n, a[1]};
}

// x, or what dropout leaves of it, pushed on the stack.
Tensor left_of(Ctx& ctx, const Adapter& adapter, const Tensor& x) {
  if (!adapter.dropout) return x;
  const Tensor left = ctx.stack.push("adapter input", x.shape, x.dtype);
  drop_out(ctx, {.x = x, .y = left, .dropout = adapter.dropout});
  return left;
}

Tensor push_expanded(Ctx& ctx, const Adapter& adapter, int64_t n) {
  const Tensor expanded = ctx.stack.push("adapter B", expanded_shape(adapter, n), adapter.b.dtype);
  expand_adapter(ctx,
                 {.b = adapter.b, .modules = adapter.modules, .scale = adapter.scale_of_left(), .expanded = expanded});
  return expanded;
}

// u = x A^T, of what is left of x, into adapter.u or pushed.
Tensor make_inner(Ctx& ctx, const Adapter& adapter, const Tensor& x, const RowGroups* groups) {
  const Shape shape = {x.rows(), adapter.a.shape[-2]};
  const Tensor u = adapter.u ? adapter.u : ctx.stack.push("adapter inner", shape, x.dtype);
  multiply(ctx, {.left = x, .weight = adapter.a, .result = u, .groups = groups, .transposed = true});
  return u;
}

// v = dy s B, into adapter.v.
void make_inner_gradient(Ctx& ctx, const Adapter& adapter, const AdapterDataGradient& args) {
  const Frame frame(ctx);
  multiply(ctx, {.left = args.dy,
                 .weight = push_expanded(ctx, adapter, args.dy.shape[1]),
                 .result = adapter.v,
                 .groups = args.groups});
}

// The same in a dtype that may be wider.
Tensor push_expanded(Ctx& ctx, const Adapter& adapter, int64_t n, DType dtype) {
  const Tensor expanded = push_expanded(ctx, adapter, n);
  if (expanded.dtype == dtype) return expanded;
  const Tensor wide = ctx.stack.push("adapter B, wide", expanded.shape, dtype);
  cast(ctx, expanded, wide);
  return wide;
}

}  // namespace

Adapter Adapter::of_rows(int64_t first, int64_t rows) const {
  Adapter part = *this;
  part.dropout = dropout.slice(first, rows);
  part.u = {};
  if (v) part.v = v.slice(0, rows);
  return part;
}

Adapter Adapter::of_expert(int64_t e, int64_t first_row, int64_t rows) const {
  if (!a) return {};
  const auto part = [&](const WeightGradient& all) {
    return WeightGradient{all.tensor ? all.tensor.slice(e, 1) : Tensor{}, all.accumulate};
  };
  return {.a = a.slice(e, 1),
          .b = b.slice(e, 1),
          .modules = modules,
          .scale = scale,
          .da = part(da),
          .db = part(db),
          .u = u ? u.slice(first_row, rows) : Tensor{},
          .v = v ? v.slice(first_row, rows) : Tensor{},
          .dropout = dropout.slice(first_row, rows)};
}

bool write_adapter(Ctx& ctx, const Adapter& adapter, const AdapterForward& args) {
  if (!adapter) return false;
  const Range range(ctx, "adapter");
  const Frame frame(ctx);
  const Tensor u = make_inner(ctx, adapter, left_of(ctx, adapter, args.x), args.groups);
  multiply(ctx, {.left = u,
                 .weight = push_expanded(ctx, adapter, args.y.shape[1]),
                 .result = args.y,
                 .groups = args.groups,
                 .transposed = true});
  return true;
}

void write_inner(Ctx& ctx, const Adapter& adapter, const AdapterForward& args) {
  const Range range(ctx, "adapter");
  const Frame frame(ctx);
  make_inner(ctx, adapter, left_of(ctx, adapter, args.x), args.groups);
}

bool write_adapter_data_gradient(Ctx& ctx, const Adapter& adapter, const AdapterDataGradient& args) {
  if (!adapter) return false;
  const Range range(ctx, "adapter, data gradient");
  make_inner_gradient(ctx, adapter, args);
  multiply(ctx, {.left = adapter.v, .weight = adapter.a, .result = args.dx, .groups = args.groups});
  if (adapter.dropout) drop_out(ctx, {.x = args.dx, .y = args.dx, .dropout = adapter.dropout});
  return true;
}

void write_inner_gradient(Ctx& ctx, const Adapter& adapter, const AdapterDataGradient& args) {
  const Range range(ctx, "adapter, data gradient");
  make_inner_gradient(ctx, adapter, args);
}

void adapter_weight_gradient(Ctx& ctx, const Adapter& adapter, const AdapterWeightGradient& args) {
  if (!adapter || (!adapter.da.tensor && !adapter.db.tensor)) return;
  const Range range(ctx, "adapter, weight gradient");
  const Frame frame(ctx);
  const bool reads_x = adapter.da.tensor || (adapter.db.tensor && !adapter.u);
  const Tensor x = reads_x ? left_of(ctx, adapter, args.x) : args.x;
  if (adapter.da.tensor) multiply(ctx, {.dy = adapter.v, .x = x, .dw = adapter.da, .groups = args.groups});
  if (!adapter.db.tensor) return;
  const Tensor u = adapter.u ? adapter.u : make_inner(ctx, adapter, x, args.groups);
  const Tensor dexpanded =
      ctx.stack.push("adapter B gradient", expanded_shape(adapter, args.dy.shape[1]), statistics_dtype(args.dy.dtype));
  multiply(ctx, {.dy = args.dy, .x = u, .dw = {dexpanded}, .groups = args.groups});
  fold_adapter(ctx, {.dexpanded = dexpanded,
                     .modules = adapter.modules,
                     .scale = adapter.scale_of_left(),
                     .db = adapter.db.tensor,
                     .accumulate = adapter.db.accumulate});
}

void add_router_adapter(Ctx& ctx, const Adapter& adapter, const AdapterForward& args) {
  if (!adapter) return;
  const Range range(ctx, "router adapter");
  const Frame frame(ctx);
  const DType dtype = args.y.dtype;
  const Tensor u = ctx.stack.push("adapter inner", {args.x.rows(), adapter.a.shape[0]}, dtype);
  router_logits(ctx, left_of(ctx, adapter, args.x), adapter.a, u);
  gemm(ctx, {.a = u,
             .b = push_expanded(ctx, adapter, args.y.shape[1], dtype),
             .c = args.y,
             .trans_b = true,
             .accumulate = true});
}

void router_adapter_backward(Ctx& ctx, const Adapter& adapter, const RouterAdapterBackward& args) {
  if (!adapter) return;
  const Range range(ctx, "router adapter, backward");
  const Frame frame(ctx);
  const DType dtype = args.dy.dtype;
  const int64_t n = args.dy.shape[1];
  const Shape inner = {args.x.rows(), adapter.a.shape[0]};
  const Tensor x = left_of(ctx, adapter, args.x), v = ctx.stack.push("adapter inner gradient", inner, dtype);
  gemm(ctx, {.a = args.dy, .b = push_expanded(ctx, adapter, n, dtype), .c = v});
  Tensor dx = args.dx;
  if (adapter.dropout) {
    dx = ctx.stack.push("adapter input gradient", args.dx.shape, args.dx.dtype);
    zero(ctx, dx);
  }
  router_logits_backward(ctx, {.x = x,
                               .weight = adapter.a,
                               .dlogits = v,
                               .dx = dx,
                               .dweight = adapter.da.tensor,
                               .accumulate = adapter.da.accumulate});
  if (adapter.dropout) {
    drop_out(ctx, {.x = dx, .y = dx, .dropout = adapter.dropout});
    router_jitter(ctx, {.x = dx, .y = args.dx, .key = 0, .first_token = 0, .eps = 0, .accumulate = true});  // a sum
  }
  if (!adapter.db.tensor) return;
  const Tensor u = ctx.stack.push("adapter inner", inner, dtype),
               dexpanded = ctx.stack.push("adapter B gradient", expanded_shape(adapter, n), dtype);
  router_logits(ctx, x, adapter.a, u);
  gemm(ctx, {.a = args.dy, .b = u, .c = dexpanded, .trans_a = true});
  fold_adapter(ctx, {.dexpanded = dexpanded,
                     .modules = adapter.modules,
                     .scale = adapter.scale_of_left(),
                     .db = adapter.db.tensor,
                     .accumulate = adapter.db.accumulate});
}

namespace {

// All rows of an A.
AdaptedModules rows_of(const Tensor& a) {
  AdaptedModules rows;
  rows.add({0, a.shape[0]});
  return rows;
}

Tensor push_scaled_a(Ctx& ctx, const Adapter& adapter) {
  const Tensor scaled = ctx.stack.push("adapter A", adapter.a.shape, adapter.a.dtype);
  expand_adapter(ctx, {.b = adapter.a, .modules = rows_of(adapter.a), .scale = adapter.scale, .expanded = scaled});
  return scaled;
}

// u = rows of B.
Tensor push_rows(Ctx& ctx, const Adapter& adapter, const Tensor& ids) {
  const Tensor u = ctx.stack.push("adapter inner", {ids.rows(), adapter.b.shape[1]}, adapter.b.dtype);
  embedding_forward(ctx, ids, adapter.b, u);
  return u;
}

}  // namespace

void add_embedding_adapter(Ctx& ctx, const Adapter& adapter, const Tensor& ids, const Tensor& y) {
  if (!adapter) return;
  const Range range(ctx, "embedding adapter");
  const Frame frame(ctx);
  gemm(ctx, {.a = push_rows(ctx, adapter, ids), .b = push_scaled_a(ctx, adapter), .c = y, .accumulate = true});
}

void embedding_adapter_backward(Ctx& ctx, const Adapter& adapter, const EmbeddingAdapterBackward& args) {
  if (!adapter) return;
  const Range range(ctx, "embedding adapter, backward");
  const Frame frame(ctx);
  if (adapter.db.tensor) {
    const Tensor v = ctx.stack.push("adapter inner gradient", {args.dy.rows(), adapter.a.shape[0]}, args.dy.dtype);
    gemm(ctx, {.a = args.dy, .b = push_scaled_a(ctx, adapter), .c = v, .trans_b = true});
    embedding_backward(
        ctx, {.index = args.rows_by_id, .dy = v, .dtable = adapter.db.tensor, .accumulate = adapter.db.accumulate});
  }
  if (!adapter.da.tensor) return;
  const Tensor unscaled = ctx.stack.push("adapter A gradient", adapter.a.shape, statistics_dtype(args.dy.dtype));
  gemm(ctx, {.a = push_rows(ctx, adapter, args.ids), .b = args.dy, .c = unscaled, .trans_a = true});
  fold_adapter(ctx, {.dexpanded = unscaled,
                     .modules = rows_of(adapter.a),
                     .scale = adapter.scale,
                     .db = adapter.da.tensor,
                     .accumulate = adapter.da.accumulate});
}

}  // namespace mixtune
