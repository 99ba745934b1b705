// How far 8-bit products are from exact ones. Too much says that a scale is wrong; too little, that an operand was not
// quantised.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/testing.h"
#include "precision/recipe.h"

namespace mixtune {
namespace {

constexpr int64_t kRows = 384, kWide = 256, kTall = 256;

struct Products {
  Buffer<double> y{{kRows, kTall}}, dx{{kRows, kWide}}, dw{{kTall, kWide}};
};

struct Operands {
  Buffer<double> x = Buffer<double>::random({kRows, kWide}, "x"), w = Buffer<double>::random({kTall, kWide}, "w"),
                 dy = Buffer<double>::random({kRows, kTall}, "dy");

  Products multiply(const RecipeOptions& options) {
    TestCtx ctx;
    Products p;
    const std::unique_ptr<Recipe> recipe = make_recipe(options);
    recipe->linear(ctx, {.x = x, .weight = w.tensor(), .y = p.y, .live = kRows});
    recipe->linear_backward(ctx,
                            {.x = x, .weight = w.tensor(), .dy = dy, .dx = p.dx, .dweight = {p.dw}, .live = kRows});
    return p;
  }
};

double relative_error(const double* a, const double* b, int64_t n) {
  double error = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    squares += b[i] * b[i];
  }
  return std::sqrt(error / squares);
}

double relative_error(const Buffer<double>& a, const Buffer<double>& b) {
  return relative_error(&a[0], &b[0], a.size());
}

// Of the rows, the error that 99% of them do not exceed.
double worst_rows(const Buffer<double>& a, const Buffer<double>& b, int64_t columns) {
  std::vector<double> errors;
  for (int64_t i = 0; i < a.size(); i += columns) errors.push_back(relative_error(&a[i], &b[i], columns));
  std::ranges::sort(errors);
  return errors[errors.size() * 99 / 100];
}

TEST(EightBitError, GaussianOperands) {
  Operands operands;
  const Products exact = operands.multiply({});
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx})
    for (const bool power_of_two : {true, false}) {
      const Products p = operands.multiply({.eight_bit = scaling, .power_of_two_scales = power_of_two});
      EXPECT_NEAR(relative_error(p.y, exact.y), 0.037, 0.003);
      EXPECT_NEAR(relative_error(p.dx, exact.dx), 0.037, 0.003);
      EXPECT_NEAR(relative_error(p.dw, exact.dw), 0.036, 0.003);
    }
  const Products p = operands.multiply({.eight_bit = EightBitScaling::kTensor});
  EXPECT_NEAR(relative_error(p.y, exact.y), 0.037, 0.003);
  EXPECT_NEAR(relative_error(p.dx, exact.dx), 0.058, 0.004);  // E5M2 gradients: 5.3% and 2.6%
  EXPECT_NEAR(relative_error(p.dw, exact.dw), 0.058, 0.004);
}

// Tokens whose gradients differ by 2^24: a scale for each row, or for 128 or 32 of its elements, takes care of it; one
// for all tokens needs the range of E5M2, and has its error.
TEST(EightBitError, TokensOfVeryDifferentSize) {
  Operands operands;
  for (int64_t i = 0; i < kRows * kTall; ++i)
    operands.dy[i] = std::ldexp(operands.dy[i], -static_cast<int>(i / kTall * 7 % 25));
  const Products exact = operands.multiply({});
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx})
    EXPECT_LT(worst_rows(operands.multiply({.eight_bit = scaling}).dx, exact.dx, kWide), 0.05);
  EXPECT_GT(worst_rows(operands.multiply({.eight_bit = EightBitScaling::kTensor}).dx, exact.dx, kWide), 0.06);
}

}  // namespace
}  // namespace mixtune
