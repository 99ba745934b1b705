// Small reductions whose result stays on the device.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// total [1] fp64 += the sum of values [N] fp64, in a fixed order.
void add_sum(Ctx& ctx, const Tensor& values, const Tensor& total);

}  // namespace mixtune
