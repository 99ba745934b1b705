#include "kernels/gemm/gemm.h"

#include "kernels/gemm/cuda_ops.h"
#include "kernels/gemm/gemm_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

template <class S>
void multiply(const GemmArgs& args, int64_t k) {
  const int64_t m = args.c.shape[0], n = args.c.shape[1];
  const cpu::Product<S> product = {.m = m,
                                   .n = n,
                                   .k = k,
                                   .a = args.a.as<S>(),
                                   .lda = args.a.shape[1],
                                   .trans_a = args.trans_a,
                                   .b = args.b.as<S>(),
                                   .ldb = args.b.shape[1],
                                   .trans_b = args.trans_b,
                                   .c = args.c.as<S>(),
                                   .ldc = n,
                                   .accumulate = args.accumulate};
  cpu::multiply_all(1, [&](int64_t) { return product; });
}

template <class S>
void multiply_groups(const GroupedGemmArgs& args) {
  const int64_t k = args.x.shape[1], n = args.y.shape[1];
  if (!args.accumulate) cpu::clear_gaps(args.groups, n, args.y.rows(), args.y.as<S>());
  cpu::multiply_all(args.groups.groups, [&](int64_t e) -> cpu::Product<S> {
    const int64_t row = args.groups.begin[e];
    return {.m = args.groups.count[e],
            .n = n,
            .k = k,
            .a = args.x.as<S>() + row * k,
            .lda = k,
            .trans_a = false,
            .b = args.w.as<S>() + e * n * k,
            .ldb = args.w.shape[2],
            .trans_b = args.trans_w,
            .c = args.y.as<S>() + row * n,
            .ldc = n,
            .accumulate = args.accumulate};
  });
}

template <class S>
void multiply_groups(const GroupedWgradArgs& args) {
  const int64_t n = args.dy.shape[1], k = args.x.shape[1];
  cpu::multiply_all(args.groups.groups, [&](int64_t e) -> cpu::Product<S> {
    const int64_t row = args.groups.begin[e];
    return {.m = n,
            .n = k,
            .k = args.groups.count[e],
            .a = args.dy.as<S>() + row * n,
            .lda = n,
            .trans_a = true,
            .b = args.x.as<S>() + row * k,
            .ldb = k,
            .trans_b = false,
            .c = args.dw.as<S>() + e * n * k,
            .ldc = k,
            .accumulate = args.accumulate};
  });
}

}  // namespace

void gemm(Ctx& ctx, const GemmArgs& args) {
  const int64_t m = args.c.shape[0], n = args.c.shape[1];
  const int64_t k = args.a.shape[args.trans_a ? 0 : 1];
  MT_CHECK(args.a.shape[args.trans_a ? 1 : 0] == m);
  MT_CHECK(args.b.shape[args.trans_b ? 0 : 1] == n && args.b.shape[args.trans_b ? 1 : 0] == k);
  on_device(
      ctx, args.c.dtype, [&]<class S>(S) { multiply<S>(args, k); }, [&] { cuda::gemm(ctx, args); });
}

void grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args) {
  const int64_t k = args.x.shape[1], n = args.y.shape[1], groups = args.groups.groups;
  MT_CHECK(args.x.rows() == args.y.rows());
  MT_CHECK(args.w.shape == (args.trans_w ? Shape{groups, n, k} : Shape{groups, k, n}));
  on_device(
      ctx, args.y.dtype, [&]<class S>(S) { multiply_groups<S>(args); }, [&] { cuda::grouped_gemm(ctx, args); });
}

void grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args) {
  const int64_t n = args.dy.shape[1], k = args.x.shape[1], groups = args.groups.groups;
  MT_CHECK(args.dy.rows() == args.x.rows());
  MT_CHECK(args.dw.shape == (Shape{groups, n, k}));
  on_device(
      ctx, args.dw.dtype, [&]<class S>(S) { multiply_groups<S>(args); }, [&] { cuda::grouped_wgrad(ctx, args); });
}

}  // namespace mixtune
