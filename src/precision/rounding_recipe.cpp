// Operands rounded to 8 bits, and multiplied as what they then are.
#include "precision/operand_bits.h"
#include "precision/plain_recipe.h"

namespace mixtune {

namespace {

class RoundingRecipe : public PlainRecipe {
 public:
  explicit RoundingRecipe(const RecipeOptions& options) : options_(options) {}

 protected:
  void multiply(Ctx& ctx, const Product& product) const override {
    const Frame frame(ctx);
    Product rounded = product;
    rounded.left = round(ctx, product, OperandSide::kLeft);
    rounded.right = round(ctx, product, OperandSide::kRight);
    PlainRecipe::multiply(ctx, rounded);
  }

 private:
  Tensor round(Ctx& ctx, const Product& product, OperandSide side) const {
    const Tensor& x = side == OperandSide::kLeft ? product.left : product.right;
    const Tensor y = ctx.stack.push("operand in 8 bits", x.shape, x.dtype);
    const EightBits bits = operand_bits(options_, product.kind, side);
    const bool of_tokens = side == OperandSide::kLeft || product.kind == Kind::kWeightGradient;
    of_tokens&& product.groups&& shares_scale(bits)
        ? round_groups(ctx, x, y, bits, *product.groups)
        : round_operand(ctx, {.x = x, .y = y, .bits = bits, .live = of_tokens ? product.live : x.shape[-2]});
    return y;
  }

  static void round_groups(Ctx& ctx, const Tensor& x, const Tensor& y, const EightBits& bits, const RowGroups& groups) {
    zero(ctx, y);
    for (int64_t e = 0; e < groups.groups; ++e) {
      const int64_t begin = groups.begin[e], count = groups.count[e];
      round_operand(ctx, {.x = x.slice(begin, count), .y = y.slice(begin, count), .bits = bits, .live = count});
    }
  }

  const RecipeOptions options_;
};

}  // namespace

std::unique_ptr<Recipe> make_rounding_recipe(const RecipeOptions& options) {
  return std::make_unique<RoundingRecipe>(options);
}

}  // namespace mixtune
