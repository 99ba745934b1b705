#include "kernels/fill.h"

#include "kernels/cuda_ops.h"
#include "kernels/fill_cpu.h"

namespace mixtune {

void fill_normal(Ctx& ctx, const FillNormal& args) {
  if (ctx.like_gpu()) return cuda::fill_normal(ctx, args);
  if (args.tensor.dtype == DType::kBF16) return cpu::fill_normal<BF16>(args);
  if (args.tensor.dtype == DType::kF64) return cpu::fill_normal<double>(args);
  cpu::fill_normal<float>(args);
}

}  // namespace mixtune
