#include "kernels/eight_bit/coded_gemm.h"

#include "kernels/eight_bit/coded_gemm_cpu.h"
#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

WeightRows::WeightRows(const Tensor& weight)
    : matrix_(weight.view({weight.elements() / weight.shape[-1], weight.shape[-1]})),
      experts_(weight.shape.rank() == 3 ? weight.shape[0] : 1) {
  MT_CHECK(experts_ <= kMaxCodedGroups);
  const auto rows = static_cast<int32_t>(weight.shape[-2]);
  for (int64_t e = 0; e < experts_; ++e) {
    begin_[e] = static_cast<int32_t>(e) * rows;
    count_[e] = rows;
  }
}

bool has_coded_products(int compute_capability, ScaleRule scale) {
  // cuBLAS's documentation has _VEC128_32F and _BLK128x128_32F on 9.0 alone, _VEC32_UE8M0 from 10.0 on. On generations
  // that it does not know yet a mode may be gone again, as Hopper's is.
  const int generation = compute_capability / 10;
  return scale == ScaleRule::kMx ? generation >= 10 && generation <= 12 : compute_capability == 90;
}

void coded_gemm(Ctx& ctx, const CodedGemm& args) {
  MT_CHECK(args.x.scales.dtype == args.weight.scales.dtype);
  on_device(
      ctx, args.y.dtype, [&]<class S>(S) { cpu::coded_gemm<S>(args); }, [&] { cuda::coded_gemm(ctx, args); });
}

void coded_wgrad(Ctx& ctx, const CodedWgrad& args) {
  MT_CHECK(args.dy.scales.dtype == args.x.scales.dtype);
  on_device(
      ctx, args.dw.dtype, [&]<class S>(S) { cpu::coded_wgrad<S>(args); }, [&] { cuda::coded_wgrad(ctx, args); });
}

}  // namespace mixtune
