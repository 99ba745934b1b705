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

void coded_gemm(Ctx& ctx, const CodedGemm& args) {
  on_device(
      ctx, args.y.dtype, [&]<class S>(S) { cpu::coded_gemm<S>(args); }, [&] { cuda::coded_gemm(ctx, args); });
}

void coded_wgrad(Ctx& ctx, const CodedWgrad& args) {
  on_device(
      ctx, args.dw.dtype, [&]<class S>(S) { cpu::coded_wgrad<S>(args); }, [&] { cuda::coded_wgrad(ctx, args); });
}

}  // namespace mixtune
