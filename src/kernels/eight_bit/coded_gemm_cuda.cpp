// Products of codes on a GPU, in terms of GemmPlans.
#include <algorithm>

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/gemm/gemm_cuda.h"

namespace mixtune::cuda {

namespace {

// One operand of a group's product: where it begins, and how its rows follow each other.
struct Part {
  const void* codes;
  const void* scales;
  int64_t stride;

  // `matrix_rows`: of the matrix that was quantised.
  Part(const Codes& operand, CodesForm form, const CodedGroup& group, int64_t matrix_rows)
      : codes(address(operand.codes, is_transposed(form) ? group.begin : group.begin * group.columns)),
        scales(address(operand.scales, scales_begin(operand.scales.dtype, form, group))),
        stride(is_transposed(form) ? matrix_rows : group.columns) {}
};

// Each product is by scales that the GPU has.
void check_scales(Ctx& ctx, DType scales) {
  const ScaleRule rule = scales == DType::kF8E8M0 ? ScaleRule::kMx : ScaleRule::kPowerOfTwo;
  MT_CHECK(has_coded_products(ctx.gpu->compute_capability(), rule));
}

GemmProduct product_of(const GemmKey& shape, DType scales, const Part& a, const Part& b) {
  GemmProduct product = {.shape = shape,
                         .a = a.codes,
                         .b = b.codes,
                         .a_stride = a.stride,
                         .b_stride = b.stride,
                         .a_scales = a.scales,
                         .b_scales = b.scales};
  product.shape.operands = DType::kF8E4M3;
  product.shape.scales = scales;
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
  const int64_t k = args.x.codes.shape[1], n = args.y.shape[1], experts = args.groups.groups, all = args.y.rows();
  const DType scales = args.x.scales.dtype;
  check_groups(args.groups, all);
  check_scales(ctx, scales);
  if (!args.accumulate) zero_between(ctx, args.groups, args.y);
  const GemmKey shape = {.n = n, .k = k, .trans_b = true, .accumulate = args.accumulate};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, experts, plans.max_group_rows(), [&](int64_t e) {
    const CodedGroup rows = coded_group(args.groups, e, k);
    const CodedGroup weight = forward ? CodedGroup{.index = e, .begin = e * n, .rows = n, .columns = k}
                                      : CodedGroup{.index = e, .begin = e * k, .rows = k, .columns = n};
    GemmProduct product = product_of(
        shape.with_tokens(rows.rows), scales, Part(args.x, CodesForm::kRows, rows, all),
        Part(args.weight, forward ? CodesForm::kSquares : CodesForm::kTurned, weight, experts * weight.rows));
    set_result(product, args.y, rows.begin * n);
    return product;
  });
}

void coded_wgrad(Ctx& ctx, const CodedWgrad& args) {
  const int64_t n = args.dw.shape[-2], k = args.dw.shape[-1], all = args.x.codes.shape[1], experts = args.groups.groups;
  const DType scales = args.x.scales.dtype;
  check_groups(args.groups, all);
  check_scales(ctx, scales);
  // Groups begin at any multiple of 128 codes: so one choice is for all.
  const GemmKey shape = {.m = n, .n = k, .trans_a = true, .accumulate = args.accumulate, .alignment = 16};
  GemmPlans& plans = ctx.gpu->part<GemmPlans>();
  plans.run(ctx, experts, plans.max_group_rows(), [&](int64_t e) {
    const CodedGroup left = coded_group(args.groups, e, n), right = coded_group(args.groups, e, k);
    GemmProduct product =
        product_of(shape.with_tokens(left.rows), scales, Part(args.dy, CodesForm::kColumns, left, all),
                   Part(args.x, CodesForm::kTurned, right, all));
    set_result(product, args.dw, e * n * k);
    return product;
  });
}

}  // namespace mixtune::cuda
