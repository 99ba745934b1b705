// The one branch an op makes: on the device, and on the CPU on the scalar (float is the product, double the oracle).
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

template <class Op>
void on_device(const Ctx& ctx, DType dtype, Op&& op) {
  MT_CHECK(ctx.device.type == DeviceType::kCpu);
  if (dtype == DType::kF64) return op(double{});
  MT_CHECK(dtype == DType::kF32);
  op(float{});
}

}  // namespace mixtune
