// cast: changes the dtype of a tensor.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// to = from, rounded to nearest (ties to even). From fp32, bf16 or fp16 (fp64 too on the CPU) to fp32 or bf16 (or fp64
// on the CPU). Same element count; no overlap unless they are the same tensor.
void cast(Ctx& ctx, const Tensor& from, const Tensor& to);

}  // namespace mixtune
