// round_operand: what 8-bit arithmetic makes of a matrix product's operand.
#pragma once

#include "base/fp8.h"
#include "tensor/ctx.h"

namespace mixtune {

// The elements of a matrix that share a scale: blocks of rows x columns, counted from the first element of each matrix;
// those at its end may be smaller. 0: all of them.
struct ScaleBlocks {
  int64_t rows, columns;

  bool operator==(const ScaleBlocks&) const = default;
};

struct EightBits {
  Fp8Format format = kE4M3;
  ScaleBlocks blocks = {};
  ScaleRule scale = ScaleRule::kMx;
};

// y = round(x / scale) scale, element by element, where a block's scale comes of its largest finite magnitude (1 where
// all are 0) and round is fp8.h's round_to. x and y are [R, C] or E matrices [E, R, C] of one dtype; they may be the
// same. Rows from `live` on, of [R, C], count in no scale and become 0. A power of two makes y exact; fp32 scales round
// the product once more.
struct RoundOperand {
  Tensor x, y;
  EightBits bits;
  int64_t live;
};
void round_operand(Ctx& ctx, const RoundOperand& args);

// On a GPU, scratch for the largest magnitude of each matrix, where its elements share a scale; otherwise empty.
Tensor push_matrix_amax(Ctx& ctx, const Tensor& x, const EightBits& bits);

}  // namespace mixtune
