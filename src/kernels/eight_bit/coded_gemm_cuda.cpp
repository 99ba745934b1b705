// Products of codes on a GPU, in terms of GemmPlans.
#include <algorithm>

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/gemm/gemm_cuda.h"

namespace mixtune::cuda {

namespace {

// Where one operand of a group's product begins, and how its rows follow each other.
struct Part {
  int64_t codes, scales, stride;
};

GemmProduct product_of(const GemmKey& shape, const Codes& a, const Part& a_part, const Codes& b, const Part& b_part) {
  GemmProduct product = {.shape = shape,
                         .a = a.codes.as<E4M3>() + a_part.codes,
                         .b = b.codes.as<E4M3>() + b_part.codes,
                         .a_stride = a_part.stride,
                         .b_stride = b_part.stride,
                         .a_scales = a.scales.as<float>() + a_part.scales,
                         .b_scales = b.scales.as<float>() + b_part.scales};
  product.shape.operands = DType::kF8E4M3;
  for (const void* matrix : {product.a, product.b})
    product.shape.alignment = std::min(product.shape.alignment, alignment_class(reinterpret_cast<uintptr_t>(matrix)));
  return product;
}

void set_result(GemmProduct& product, const Tensor& result, int64_t first) {
  product.c = address(result, first);
  product.shape.result = result.dtype;
}

}  // namespace

void coded_gemm(Ctx& ctx, const CodedGemm& args) {
  const bool forward = args.side == WeightSide::kForward;
  const int64_t k = args.x.codes.shape[1], n = args.y.shape[1], experts = args.groups.groups;
  check_groups(args.groups, args.y.rows());
  if (!args.accumulate) zero_between(ctx, args.groups, args.y);
  const GemmKey shape = {.n = n, .k = k, .trans_b = true, .accumulate = args.accumulate};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, experts, plans.max_group_rows(), [&](int64_t e) {
    const CodedGroup rows = coded_group(args.groups, e, k);
    const Part x = {.codes = rows.begin * k, .scales = rows.rows_begin(), .stride = k};
    const CodedGroup straight = {.index = e, .begin = e * n, .rows = n, .columns = k},
                     turned = {.index = e, .begin = e * k, .rows = k, .columns = n};
    const Part weight = forward ? Part{.codes = e * n * k, .scales = straight.squares_begin(), .stride = k}
                                : Part{.codes = e * k, .scales = turned.turned_begin(), .stride = experts * k};
    GemmProduct product = product_of(shape.with_tokens(rows.rows), args.x, x, args.weight, weight);
    set_result(product, args.y, rows.begin * n);
    return product;
  });
}

void coded_wgrad(Ctx& ctx, const CodedWgrad& args) {
  const int64_t n = args.dw.shape[-2], k = args.dw.shape[-1], all = args.x.codes.shape[1], experts = args.groups.groups;
  check_groups(args.groups, all);
  // Groups begin at any multiple of 128 codes: so one choice is for all.
  const GemmKey shape = {.m = n, .n = k, .trans_a = true, .accumulate = args.accumulate, .alignment = 16};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, experts, plans.max_group_rows(), [&](int64_t e) {
    const CodedGroup left = coded_group(args.groups, e, n), right = coded_group(args.groups, e, k);
    GemmProduct product = product_of(shape.with_tokens(left.rows), args.dy,
                                     {.codes = left.begin, .scales = left.columns_begin(), .stride = all}, args.x,
                                     {.codes = left.begin, .scales = right.turned_begin(), .stride = all});
    set_result(product, args.dw, e * n * k);
    return product;
  });
}

}  // namespace mixtune::cuda
