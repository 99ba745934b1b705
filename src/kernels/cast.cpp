#include "kernels/cast.h"

#include "kernels/cast_cpu.h"
#include "kernels/cuda_ops.h"

namespace mixtune {

void cast(Ctx& ctx, const Tensor& from, const Tensor& to) {
  MT_CHECK(from.elements() == to.elements());
  if (ctx.is_meta()) return;
  if (from.dtype != to.dtype) return ctx.like_gpu() ? cuda::cast(ctx, from, to) : cpu::cast(from, to);
  if (from.data != to.data) copy(ctx, from, to);
}

}  // namespace mixtune
