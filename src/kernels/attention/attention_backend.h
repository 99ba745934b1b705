// warm_up_attention: makes a GPU's attention ready.
#pragma once

#include "kernels/warm_up.h"

namespace mixtune::cuda {

// Builds cuDNN's plans, where it runs attention, for every batch within the limits; the shape's documents do not
// matter. Where cuDNN turns out not to work, warns, and attention runs on mixtune's own kernels from then on.
void warm_up_attention(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);

}  // namespace mixtune::cuda
