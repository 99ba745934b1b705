// The one branch an op makes: on the device, and on the CPU on the scalar (float is the product, double the oracle).
#pragma once

#include <utility>

#include "tensor/ctx.h"
#include "tensor/profiler.h"

namespace mixtune {

// Calls cpu_op(S{}) on the CPU; gpu_op(), the op's CUDA half, on a GPU. For ops that serve any caller (matrix products,
// permutations): the caller names the part of a step that they are.
template <class CpuOp, class GpuOp>
void on_device(const Ctx& ctx, DType dtype, CpuOp&& cpu_op, GpuOp&& gpu_op) {
  if (ctx.is_meta()) return;
  if (ctx.like_gpu()) return gpu_op();
  if (dtype == DType::kF64) return cpu_op(double{});
  MT_CHECK(dtype == DType::kF32);
  cpu_op(float{});
}

// As above, and names the op as a part of a step: `name` is a literal, the same for all ops that are counted together.
template <class CpuOp, class GpuOp>
void on_device(Ctx& ctx, const char* name, DType dtype, CpuOp&& cpu_op, GpuOp&& gpu_op) {
  const Range range(ctx, name);
  on_device(ctx, dtype, std::forward<CpuOp>(cpu_op), std::forward<GpuOp>(gpu_op));
}

}  // namespace mixtune
