#include "precision/operand_bits.h"

namespace mixtune {

namespace {

constexpr int64_t kAll = 0;  // of ScaleBlocks

ScaleBlocks blocks_of(EightBitScaling scaling, ProductKind kind, OperandSide side) {
  const bool left = side == OperandSide::kLeft;
  // Of the operand's two dimensions, which one the product sums over.
  const bool sums_columns = kind == ProductKind::kForward || (kind == ProductKind::kDataGradient && left);
  switch (scaling) {
    case EightBitScaling::kTensor:
      return {kAll, kAll};
    case EightBitScaling::kMx:
      return sums_columns ? ScaleBlocks{1, 32} : ScaleBlocks{32, 1};
    case EightBitScaling::kBlock:
      if (!left) return {128, 128};
      return sums_columns ? ScaleBlocks{1, 128} : ScaleBlocks{128, 1};
  }
  MT_CHECK(false);
}

}  // namespace

EightBits operand_bits(const RecipeOptions& options, ProductKind kind, OperandSide side) {
  const EightBitScaling scaling = *options.eight_bit;
  const bool gradient = side == OperandSide::kLeft && kind != ProductKind::kForward;
  return {.format = scaling == EightBitScaling::kTensor && gradient ? kE5M2 : kE4M3,
          .blocks = blocks_of(scaling, kind, side),
          .scale = scale_rule(options)};
}

}  // namespace mixtune
