#include "kernels/eight_bit/fp8_weight.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/testing.h"

namespace mixtune {
namespace {

class Fp8WeightTest : public testing::Test {
 protected:
  struct Held {
    explicit Held(const Shape& matrix)
        : codes(static_cast<size_t>(matrix.elements())),
          scales(fp8_weight_scales(matrix)),
          weight{Tensor{codes.data(), matrix, DType::kF8E4M3, {}}, scales} {}

    std::vector<uint8_t> codes;
    Buffer<float> scales;
    Fp8Weight weight;
  };

  template <class S>
  Buffer<S> dequantised(const Held& from) {
    Buffer<S> y(from.weight.codes.shape);
    const Fp8Dequantise args = {.from = from.weight, .to = y};
    fp8_dequantise(ctx_, {&args, 1});
    return y;
  }
  template <class S>
  Buffer<S> held(Buffer<S>& x, const Shape& matrix) {
    Held to(matrix);
    fp8_quantise(ctx_, {.x = x, .to = to.weight});
    return dequantised<S>(to);
  }
  template <class S>
  Buffer<S> rounded(Buffer<S>& x, const Shape& matrix) {
    Buffer<S> y(matrix);
    round_operand(ctx_, {.x = x, .y = y, .bits = kWeightBits, .live = matrix[0]});
    return y;
  }

  static constexpr EightBits kWeightBits = {
      .format = kE4M3, .blocks = {kScaleBlock, kScaleBlock}, .scale = ScaleRule::kPowerOfTwo};

  TestCtx ctx_;
};

// Values of very different sizes.
template <class S>
Buffer<S> of_many_sizes(const Shape& shape) {
  Buffer<S> x = Buffer<S>::random(shape, "x");
  for (int64_t i = 0; i < x.size(); ++i)
    x[i] = std::ldexp(x[i], static_cast<int>(i % 37 - 20) - static_cast<int>(i / shape[1] % 5));
  return x;
}

template <class S>
void expect_bits(const Buffer<S>& is, const Buffer<S>& wanted) {
  ASSERT_EQ(is.size(), wanted.size());
  for (int64_t i = 0; i < is.size(); ++i) {
    ASSERT_EQ(is[i], wanted[i]) << i;
    ASSERT_EQ(std::signbit(is[i]), std::signbit(wanted[i])) << i;
  }
}

TEST_F(Fp8WeightTest, IsTheRoundedOperandOfAnySizes) {
  for (const Shape& matrix : {Shape{256, 384}, {1, 1}, {300, 200}, {16, 129}, {130, 7}}) {
    Buffer<float> x = of_many_sizes<float>(matrix);
    expect_bits(held(x, matrix), rounded(x, matrix));
    Buffer<double> wide = of_many_sizes<double>(matrix);
    expect_bits(held(wide, matrix), rounded(wide, matrix));
  }
}

TEST_F(Fp8WeightTest, HasTheCodesAndScalesOfAProductsOperand) {
  const Shape matrix = {256, 640};
  Buffer<float> x = of_many_sizes<float>(matrix);
  Held is(matrix);
  fp8_quantise(ctx_, {.x = x, .to = is.weight});
  const CodesShape shape = codes_shape(CodesForm::kSquares, {.matrix = matrix});
  std::vector<uint8_t> codes(static_cast<size_t>(matrix.elements()));
  Buffer<float> scales({shape.scales});
  const int32_t begin = 0, rows = 256;
  const RowGroups all = {&begin, &rows, 1};
  quantise(ctx_, {.x = x, .groups = all, .squares = {Tensor{codes.data(), matrix, DType::kF8E4M3, {}}, scales}});
  EXPECT_EQ(is.codes, codes);
  for (int64_t r = 0; r < 2; ++r)
    for (int64_t c = 0; c < 5; ++c)
      EXPECT_EQ(is.scales[r * 5 + c], scales[scale_index(DType::kF32, CodesForm::kSquares, coded_group(all, 0, 640),
                                                         r * kScaleBlock, c * kScaleBlock)]);
}

TEST_F(Fp8WeightTest, LosesLittleOfANormalWeight) {
  const Shape matrix = {512, 1024};
  Buffer<float> x = Buffer<float>::random(matrix, "weight", 0.02);
  const Buffer<float> y = held(x, matrix);
  double squares = 0, squares_of_x = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    squares += std::pow(static_cast<double>(x[i]) - y[i], 2);
    squares_of_x += std::pow(static_cast<double>(x[i]), 2);
  }
  EXPECT_NEAR(std::sqrt(squares / squares_of_x), 0.0264, 0.0003);
}

// The largest of a square is what its scale is taken of, and rounding may make it 224 scales: then half the scale does.
TEST_F(Fp8WeightTest, StaysWhatItIsWhereItIsRoundedAgain) {
  const Shape matrix = {300, 200};
  for (const float largest : {448.0F, 225.0F, 224.0F, 231.9F, 232.1F, 300.0F}) {
    Buffer<float> x = Buffer<float>::random(matrix, "x");
    for (int64_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(x[i], -static_cast<int>(i % 23));
    x[0] = largest, x[150] = -largest, x[150 * 200] = largest / 1024;
    Buffer<float> once = held(x, matrix);
    expect_bits(rounded(once, matrix), once);
    expect_bits(held(once, matrix), once);
    EXPECT_NE(once[1], x[1]);
  }
  Buffer<float> x = Buffer<float>::random({1, 2}, "x");
  x[0] = 225, x[1] = 3.0F / 512;
  Held first({1, 2}), second({1, 2});
  fp8_quantise(ctx_, {.x = x, .to = first.weight});
  Buffer<float> once = dequantised<float>(first);
  fp8_quantise(ctx_, {.x = once, .to = second.weight});
  EXPECT_EQ(once[0], 224);
  EXPECT_EQ(first.scales[0], 1);
  EXPECT_EQ(second.scales[0], 0.5);  // and other codes, of the same values
  EXPECT_NE(first.codes, second.codes);
}

// Of every size that bf16 has, down to its least.
TEST_F(Fp8WeightTest, ABf16WeightsValuesAreBf16) {
  const Shape matrix = {512, 128};
  for (const int64_t neighbours : {1, 512}) {
    Buffer<float> x(matrix);
    for (int64_t i = 0; i < x.size(); ++i) {
      const auto bits = static_cast<uint16_t>(i * neighbours % 0x10000 + i * neighbours / 0x10000);
      x[i] = to_float(BF16{bits});
      if (!std::isfinite(x[i])) x[i] = 0;
    }
    const Buffer<float> y = held(x, matrix);
    for (int64_t i = 0; i < y.size(); ++i) ASSERT_EQ(to_float(to_bf16(y[i])), y[i]) << x[i];
  }
}

TEST_F(Fp8WeightTest, ANanStaysOneAndCountsInNoScale) {
  const Shape matrix = {130, 130};
  Buffer<float> x = Buffer<float>::random(matrix, "x");
  const Buffer<float> without = held(x, matrix);
  x[5] = std::numeric_limits<float>::quiet_NaN();
  x[129 * 130 + 129] = -std::numeric_limits<float>::infinity();
  const Buffer<float> y = held(x, matrix);
  for (int64_t i = 0; i < y.size(); ++i)
    if (std::isfinite(x[i]))
      ASSERT_EQ(y[i], without[i]) << i;
    else
      ASSERT_TRUE(std::isnan(y[i])) << i;
}

}  // namespace
}  // namespace mixtune
