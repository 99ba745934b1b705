// The products of the layers on operands that are rounded to 8 bits and multiplied as what they then are: the
// definition of 8-bit arithmetic, to which a kernel that multiplies codes comes as close as its sums.
#include "kernels/eight_bit/round_operand.h"
#include "precision/plain_recipe.h"

namespace mixtune {

namespace {

constexpr int64_t kAll = 0;  // of ScaleBlocks

class EightBitRecipe : public PlainRecipe {
 public:
  EightBitRecipe(EightBitScaling scaling, bool power_of_two_scales)
      : scaling_(scaling), power_of_two_scales_(power_of_two_scales) {}

 protected:
  Tensor read(Ctx& ctx, const Operand& operand) const override {
    const Tensor& x = operand.values;
    const Tensor y = ctx.stack.push("operand in 8 bits", x.shape, x.dtype);
    const EightBits bits = bits_of(operand);
    const bool each_group = operand.groups && x.shape.rank() == 2 && bits.blocks.rows == kAll;
    each_group ? round_groups(ctx, x, y, bits, *operand.groups)
               : round_operand(ctx, {.x = x, .y = y, .bits = bits, .live = operand.live});
    return y;
  }

 private:
  // A row block of a group ends with the group's last rows and its gap, as groups begin at multiples of kRowAlignment;
  // but where all its rows share a scale, they are rounded apart.
  static void round_groups(Ctx& ctx, const Tensor& x, const Tensor& y, const EightBits& bits, const RowGroups& groups) {
    zero(ctx, y);
    for (int64_t e = 0; e < groups.groups; ++e) {
      const int64_t begin = groups.begin[e], count = groups.count[e];
      round_operand(ctx, {.x = x.slice(begin, count), .y = y.slice(begin, count), .bits = bits, .live = count});
    }
  }

  EightBits bits_of(const Operand& operand) const {
    const bool mx = scaling_ == EightBitScaling::kMx,
               gradient = operand.side == Side::kLeft && operand.product != Product::kForward;
    return {.format = scaling_ == EightBitScaling::kTensor && gradient ? kE5M2 : kE4M3,
            .blocks = blocks_of(operand),
            .scale = mx                     ? ScaleRule::kMx
                     : power_of_two_scales_ ? ScaleRule::kPowerOfTwo
                                            : ScaleRule::kFp32};
  }

  ScaleBlocks blocks_of(const Operand& operand) const {
    const bool left = operand.side == Side::kLeft;
    // Of the operand's two dimensions, which one the product sums over.
    const bool sums_columns =
        operand.product == Product::kForward || (operand.product == Product::kDataGradient && left);
    switch (scaling_) {
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

  const EightBitScaling scaling_;
  const bool power_of_two_scales_;
};

}  // namespace

std::unique_ptr<Recipe> make_eight_bit_recipe(EightBitScaling scaling, bool power_of_two_scales) {
  return std::make_unique<EightBitRecipe>(scaling, power_of_two_scales);
}

}  // namespace mixtune
