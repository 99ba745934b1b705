// Operands rounded to 8 bits, and multiplied as what they then are.
#include "kernels/eight_bit/round_operand.h"
#include "precision/plain_recipe.h"

namespace mixtune {

namespace {

constexpr int64_t kAll = 0;  // of ScaleBlocks

class RoundingRecipe : public PlainRecipe {
 public:
  explicit RoundingRecipe(const RecipeOptions& options) : scaling_(*options.eight_bit), rule_(scale_rule(options)) {}

 protected:
  void multiply(Ctx& ctx, const Product& product) const override {
    const Frame frame(ctx);
    Product rounded = product;
    rounded.left = round(ctx, product, Side::kLeft);
    rounded.right = round(ctx, product, Side::kRight);
    PlainRecipe::multiply(ctx, rounded);
  }

 private:
  enum class Side { kLeft, kRight };

  Tensor round(Ctx& ctx, const Product& product, Side side) const {
    const Tensor& x = side == Side::kLeft ? product.left : product.right;
    const Tensor y = ctx.stack.push("operand in 8 bits", x.shape, x.dtype);
    const EightBits bits = bits_of(product.kind, side);
    const bool of_tokens = side == Side::kLeft || product.kind == Kind::kWeightGradient,
               each_group = of_tokens && product.groups && bits.blocks.rows == kAll;
    each_group ? round_groups(ctx, x, y, bits, *product.groups)
               : round_operand(ctx, {.x = x, .y = y, .bits = bits, .live = of_tokens ? product.live : x.shape[-2]});
    return y;
  }

  // A row block of a group ends with the group's last rows and its gap, as groups begin at multiples of kRowAlignment;
  // but where all its rows share a scale, they are rounded apart.
  static void round_groups(Ctx& ctx, const Tensor& x, const Tensor& y, const EightBits& bits, const RowGroups& groups) {
    zero(ctx, y);
    for (int64_t e = 0; e < groups.groups; ++e) {
      const int64_t begin = groups.begin[e], count = groups.count[e];
      round_operand(ctx, {.x = x.slice(begin, count), .y = y.slice(begin, count), .bits = bits, .live = count});
    }
  }

  EightBits bits_of(Kind kind, Side side) const {
    const bool gradient = side == Side::kLeft && kind != Kind::kForward;
    return {.format = scaling_ == EightBitScaling::kTensor && gradient ? kE5M2 : kE4M3,
            .blocks = blocks_of(kind, side),
            .scale = rule_};
  }

  ScaleBlocks blocks_of(Kind kind, Side side) const {
    const bool left = side == Side::kLeft;
    // Of the operand's two dimensions, which one the product sums over.
    const bool sums_columns = kind == Kind::kForward || (kind == Kind::kDataGradient && left);
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
  const ScaleRule rule_;
};

}  // namespace

std::unique_ptr<Recipe> make_rounding_recipe(const RecipeOptions& options) {
  return std::make_unique<RoundingRecipe>(options);
}

}  // namespace mixtune
