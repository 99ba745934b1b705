// The one branch an op makes: on the device, and on the CPU on the scalar (float is the product, double the oracle).
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// cpu_op(S{}) on the CPU; gpu_op(), the op's CUDA half, on a GPU.
template <class CpuOp, class GpuOp>
void on_device(const Ctx& ctx, DType dtype, CpuOp&& cpu_op, GpuOp&& gpu_op) {
  if (ctx.is_meta()) return;
  if (ctx.like_gpu()) return gpu_op();
  if (dtype == DType::kF64) return cpu_op(double{});
  MT_CHECK(dtype == DType::kF32);
  cpu_op(float{});
}

}  // namespace mixtune
