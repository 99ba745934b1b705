// How the operands of a layer's products are rounded to 8 bits: recipe.h's table.
#pragma once

#include "kernels/eight_bit/round_operand.h"
#include "precision/recipe.h"

namespace mixtune {

// A product of the layers, dense or of groups of rows. T tokens or routed rows, weight [N, K] or [E, N, K]:
//   kForward         y [T, N] = x [T, K] weight^T
//   kDataGradient    dx [T, K] = dy [T, N] weight
//   kWeightGradient  dweight = dy^T x
enum class ProductKind { kForward, kDataGradient, kWeightGradient };
// Left: x or dy. Right: the weight, or x.
enum class OperandSide { kLeft, kRight };

// options.eight_bit is there.
EightBits operand_bits(const RecipeOptions& options, ProductKind kind, OperandSide side);

// Whether the rows of each expert, of an operand of tokens, share a scale of their own, so that they are rounded apart.
// Otherwise all are rounded at once: a row block of a group ends with the group's last rows and its gap, as groups
// begin at multiples of kRowAlignment.
inline bool shares_scale(const EightBits& bits) {
  return bits.blocks.rows == 0;
}

}  // namespace mixtune
