// Weights held in 8 bits: E4M3 codes and a scale for each square of 128 x 128, which are the operands that products of
// `precision: fp8` make of weights (kBlockCodes' squares, scales powers of two), but of any sizes.
#pragma once

#include <span>

#include "kernels/eight_bit/quantise.h"

namespace mixtune {

// A matrix [R, C]. Squares are counted from its first element; those at its ends may be smaller.
struct Fp8Weight {
  Tensor codes;   // E4M3 [R, C]
  Tensor scales;  // fp32 [ceil(R / 128), ceil(C / 128)]
};
Shape fp8_weight_scales(const Shape& matrix);

// Fills `to` with x, R C elements of any shape, by fp8.h's scale_of and round_to. A NaN or an infinity has the code of
// a NaN and counts in no scale.
struct Fp8Quantise {
  Tensor x;  // fp32 or fp64 on the CPU, bf16 on a GPU
  Fp8Weight to;
};
void fp8_quantise(Ctx& ctx, const Fp8Quantise& args);

// Fills `to`, R C elements of any shape and of x's type, with codes times scales: exactly, in bf16 too where x was
// bf16. Quantised anew these values stay what they are, also where their square then has a smaller scale.
struct Fp8Dequantise {
  Fp8Weight from;
  Tensor to;
};
// All matrices of a list: on a GPU in as few launches as their descriptors fit into.
void fp8_dequantise(Ctx& ctx, std::span<const Fp8Dequantise> matrices);

}  // namespace mixtune
