// Why sums of 8-bit products are promoted to fp32: a control of the bound that products of codes are held to. Tensor
// cores add such products with few bits; as long as K is, that loses more than the bound allows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/eight_bit/round_operand.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr double kBound = 5e-4;  // of tests/conformance/eight_bit_cases.cpp, relative, by Frobenius' norm

// Hopper's accumulator as it was measured: 32 products and what was there before are aligned to the largest of them,
// and what lies more than 13 bits below its leading bit is cut off.
class TensorCoreSum {
 public:
  static constexpr int kFractionBits = 13;
  static constexpr int64_t kProducts = 32;

  // Of kProducts.
  void add(const double* a, const double* b) {
    double largest = std::abs(sum_);
    for (int64_t i = 0; i < kProducts; ++i) largest = std::max(largest, std::abs(a[i] * b[i]));
    if (largest == 0) return;
    const double unit = std::ldexp(1.0, std::ilogb(largest) - kFractionBits);
    double units = std::trunc(sum_ / unit);
    for (int64_t i = 0; i < kProducts; ++i) units += std::trunc(a[i] * b[i] / unit);
    sum_ = units * unit;
  }
  double take() { return std::exchange(sum_, 0); }

 private:
  double sum_ = 0;
};

// Rows of x times rows of w, with what the accumulator holds added to an fp32 sum after each `promotes` products.
Buffer<double> tensor_core_product(const Buffer<double>& x, const Buffer<double>& w, int64_t depth, int64_t promotes) {
  const int64_t rows = x.size() / depth, columns = w.size() / depth;
  Buffer<double> y({rows, columns});
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double *a = &x[i / columns * depth], *b = &w[i % columns * depth];
    TensorCoreSum sum;
    float promoted = 0;
    for (int64_t k = 0; k < depth; k += TensorCoreSum::kProducts) {
      sum.add(a + k, b + k);
      if ((k + TensorCoreSum::kProducts) % promotes == 0) promoted += static_cast<float>(sum.take());
    }
    y[i] = promoted;
  }
  return y;
}

// Of a product of E4M3 operands with scales of `fp8`: only its sums are not exact.
double error_of_sums(int64_t depth, int64_t promotes) {
  constexpr int64_t kRowsOfEither = 16;
  TestCtx ctx;
  Buffer<double> x = Buffer<double>::random({kRowsOfEither, depth}, "x"),
                 w = Buffer<double>::random({kRowsOfEither, depth}, "w", 0.02);
  round_operand(ctx, {.x = x, .y = x, .bits = {kE4M3, {1, 128}, ScaleRule::kPowerOfTwo}, .live = kRowsOfEither});
  round_operand(ctx, {.x = w, .y = w, .bits = {kE4M3, {128, 128}, ScaleRule::kPowerOfTwo}, .live = kRowsOfEither});
  const Buffer<double> y = tensor_core_product(x, w, depth, promotes);
  double error = 0, squares = 0;
  for (int64_t i = 0; i < y.size(); ++i) {
    double exact = 0;
    for (int64_t k = 0; k < depth; ++k) exact += x[i / kRowsOfEither * depth + k] * w[i % kRowsOfEither * depth + k];
    error += (y[i] - exact) * (y[i] - exact);
    squares += exact * exact;
  }
  return std::sqrt(error / squares);
}

constexpr int64_t kFfnOfMixtral = 14336, kPromotes = 128;

TEST(Promotion, KeepsLongSumsWithinTheBound) {
  EXPECT_LT(error_of_sums(kFfnOfMixtral, kPromotes), kBound);
  EXPECT_GT(error_of_sums(kFfnOfMixtral, kPromotes), kBound / 100) << "nothing was cut off: this tells nothing";
}

TEST(Promotion, WithoutItLongSumsAreBeyondTheBound) {
  EXPECT_GT(error_of_sums(kFfnOfMixtral, kFfnOfMixtral), 2 * kBound);
  EXPECT_LT(error_of_sums(kPromotes, kPromotes), kBound) << "of a sum so short there is nothing to promote";
}

}  // namespace
}  // namespace mixtune
