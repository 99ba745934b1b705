// The matrix products of a GPU: gemm.h in terms of GemmPlans.
#include "kernels/gemm/gemm_cuda.h"

#include <algorithm>

#include "kernels/gemm/cuda_ops.h"
#include "kernels/gemm/thin_gemm.h"
#include "tensor/device.h"

namespace mixtune::cuda {

char* address(const Tensor& tensor, int64_t element) {
  return static_cast<char*>(tensor.data) + element * static_cast<int64_t>(dtype_size(tensor.dtype));
}

void check_groups(const RowGroups& groups, int64_t rows) {
  int64_t end = 0;
  for (int64_t e = 0; e < groups.groups; ++e) {
    if (groups.count[e] == 0) continue;
    MT_CHECK(groups.begin[e] >= end && groups.begin[e] % kRowAlignment == 0 && groups.count[e] > 0);
    end = groups.begin[e] + align_rows(groups.count[e]);
  }
  MT_CHECK(end <= rows);
}

void zero_between(Ctx& ctx, const RowGroups& groups, const Tensor& y) {
  int64_t row = 0;
  const auto zero_until = [&](int64_t end) {
    if (end > row) zero(ctx, y.slice(row, end - row));
  };
  for (int64_t e = 0; e < groups.groups; ++e) {
    if (groups.count[e] == 0) continue;
    zero_until(groups.begin[e]);
    row = groups.begin[e] + align_rows(groups.count[e]);
  }
  zero_until(y.rows());
}

namespace {

// Where the matrices begin in the tensors, in elements.
struct Begin {
  int64_t a = 0, b = 0, c = 0;
};

GemmProduct product_of(const GemmKey& shape, const Tensor& a, const Tensor& b, const Tensor& c,
                       const Begin& begin = {}) {
  GemmProduct product = {.shape = shape, .a = address(a, begin.a), .b = address(b, begin.b), .c = address(c, begin.c)};
  product.shape.operands = a.dtype;
  product.shape.result = c.dtype;
  for (const void* matrix : {product.a, product.b, static_cast<const void*>(product.c)})
    product.shape.alignment = std::min(product.shape.alignment, alignment_class(reinterpret_cast<uintptr_t>(matrix)));
  return product;
}

void check_dtypes(const Tensor& a, const Tensor& b, const Tensor& c) {
  MT_CHECK(a.dtype == b.dtype && (a.dtype == DType::kF32 || a.dtype == DType::kBF16));
  MT_CHECK(c.dtype == a.dtype || c.dtype == DType::kF32);
}

}  // namespace

void gemm(Ctx& ctx, const GemmArgs& args) {
  check_dtypes(args.a, args.b, args.c);
  const GemmKey shape = {.m = args.c.shape[0],
                         .n = args.c.shape[1],
                         .k = args.a.shape[args.trans_a ? 0 : 1],
                         .trans_a = args.trans_a,
                         .trans_b = args.trans_b,
                         .accumulate = args.accumulate};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, 1, plans.max_tokens(), [&](int64_t) { return product_of(shape, args.a, args.b, args.c); });
}

void grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args) {
  check_dtypes(args.x, args.w, args.y);
  check_groups(args.groups, args.y.rows());
  if (!args.accumulate) zero_between(ctx, args.groups, args.y);
  if (thin_grouped_gemm(ctx, args)) return;
  const GemmKey shape = {
      .n = args.y.shape[1], .k = args.x.shape[1], .trans_b = args.trans_w, .accumulate = args.accumulate};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, args.groups.groups, plans.max_group_rows(), [&](int64_t e) {
    const int64_t row = args.groups.begin[e];
    return product_of(shape.with_tokens(align_rows(args.groups.count[e])), args.x, args.w, args.y,
                      {.a = row * shape.k, .b = e * shape.n * shape.k, .c = row * shape.n});
  });
}

void grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args) {
  check_dtypes(args.dy, args.x, args.dw);
  check_groups(args.groups, args.dy.rows());
  if (thin_grouped_wgrad(ctx, args)) return;
  const GemmKey shape = {.m = args.dy.shape[1], .n = args.x.shape[1], .trans_a = true, .accumulate = args.accumulate};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, args.groups.groups, plans.max_group_rows(), [&](int64_t e) {
    const int64_t row = args.groups.begin[e];
    return product_of(shape.with_tokens(align_rows(args.groups.count[e])), args.dy, args.x, args.dw,
                      {.a = row * shape.m, .b = row * shape.n, .c = e * shape.m * shape.n});
  });
}

}  // namespace mixtune::cuda
