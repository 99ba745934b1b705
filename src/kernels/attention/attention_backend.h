// Making a GPU's attention ready.
#pragma once

#include "kernels/warm_up.h"

namespace mixtune::cuda {

// Where cuDNN runs attention, builds its plans for every batch within the limits; the shape's documents do not matter.
// Where cuDNN turns out not to work, says so, and attention runs on mixtune's own kernels from then on.
void warm_up_attention(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);

}  // namespace mixtune::cuda
