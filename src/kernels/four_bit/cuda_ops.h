// The CUDA half of weights in 4 bits; kernels/cuda_ops.h says what holds for all.
#pragma once

#include <span>

#include "kernels/four_bit/nf4.h"

namespace mixtune::cuda {

// Of several tensors at once, in as few launches as their descriptors fit into.
void nf4_dequantise(Ctx& ctx, std::span<const Nf4Dequantise> tensors);
// absmax [blocks] fp32: args.to.absmax, or scratch where that is doubly quantised.
void nf4_quantise(Ctx& ctx, const Nf4Quantise& args, const Tensor& absmax);

}  // namespace mixtune::cuda
