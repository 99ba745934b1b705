// Every recipe against its definition, in plain loops and float64.
#include "precision/recipe.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "base/fp8.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

using Matrix = Buffer<double>;

struct Numerics {
  const char* name;
  std::optional<EightBitScaling> scaling;
  bool power_of_two = true;
  bool codes = false;
};

enum class Reads { kForwardX, kForwardW, kDataDy, kDataW, kWeightDy, kWeightX };

// What a product reads of a matrix, by the table of recipe.h.
Matrix read(const Numerics& numerics, Reads reads, Matrix& x) {
  if (!numerics.scaling) return x;
  const int64_t rows = x.tensor().shape[0], columns = x.tensor().shape[1];
  const bool by_columns = reads == Reads::kForwardX || reads == Reads::kForwardW || reads == Reads::kDataDy;
  int64_t tall = rows, wide = columns;
  Fp8Format format = kE4M3;
  switch (*numerics.scaling) {
    case EightBitScaling::kTensor:
      if (reads == Reads::kDataDy || reads == Reads::kWeightDy) format = kE5M2;
      break;
    case EightBitScaling::kMx:
      tall = by_columns ? 1 : 32;
      wide = by_columns ? 32 : 1;
      break;
    case EightBitScaling::kBlock:
      tall = reads == Reads::kForwardX || reads == Reads::kDataDy ? 1 : 128;
      wide = reads == Reads::kWeightDy ? 1 : 128;
      break;
  }
  const auto block_of = [&](int64_t r, int64_t c) {
    return r / tall * columns + c / wide;
  };
  std::vector<double> largest(rows * columns);  // of each block
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      largest[block_of(r, c)] = std::max(largest[block_of(r, c)], std::abs(x[r * columns + c]));
  Matrix y({rows, columns});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      const double amax = largest[block_of(r, c)];
      double scale = 1;
      if (amax > 0 && !numerics.power_of_two) {
        scale = static_cast<float>(amax / format.largest);
      } else if (amax > 0) {
        scale = std::exp2(std::ceil(std::log2(amax / format.largest)));
      }
      scale = std::max(scale, numerics.scaling == EightBitScaling::kMx ? 0x1p-127 : 0x1p-126);
      y[r * columns + c] = round_to(format, x[r * columns + c] / scale) * scale;
    }
  return y;
}

// a [M, K] b [K, N], of either or of its transpose.
struct Factor {
  Matrix& matrix;
  bool transposed = false;

  int64_t rows() const { return matrix.tensor().shape[transposed ? 1 : 0]; }
  int64_t columns() const { return matrix.tensor().shape[transposed ? 0 : 1]; }
  double at(int64_t i, int64_t j) const { return matrix[transposed ? j * rows() + i : i * columns() + j]; }
};

Matrix product(const Factor& a, const Factor& b) {
  Matrix c({a.rows(), b.columns()});
  for (int64_t i = 0; i < a.rows(); ++i)
    for (int64_t l = 0; l < a.columns(); ++l)
      for (int64_t j = 0; j < b.columns(); ++j) c[i * b.columns() + j] += a.at(i, l) * b.at(l, j);
  return c;
}

Matrix forward(const Numerics& n, Matrix& x, Matrix& w) {
  Matrix a = read(n, Reads::kForwardX, x), b = read(n, Reads::kForwardW, w);
  return product({a}, {b, true});
}
Matrix data_gradient(const Numerics& n, Matrix& dy, Matrix& w) {
  Matrix a = read(n, Reads::kDataDy, dy), b = read(n, Reads::kDataW, w);
  return product({a}, {b});
}
Matrix weight_gradient(const Numerics& n, Matrix& dy, Matrix& x) {
  Matrix a = read(n, Reads::kWeightDy, dy), b = read(n, Reads::kWeightX, x);
  return product({a, true}, {b});
}

// Rows [begin, begin + count) of a matrix, or of a stack of matrices [E, R, C] one.
Matrix rows_of(Matrix& x, int64_t begin, int64_t count) {
  const int64_t columns = x.tensor().shape[1];
  Matrix y({count, columns});
  std::copy_n(&x[begin * columns], count * columns, &y[0]);
  return y;
}
Matrix matrix_of(Matrix& x, int64_t e) {
  const Shape shape = x.tensor().shape;
  Matrix y({shape[1], shape[2]});
  std::copy_n(&x[e * y.size()], y.size(), &y[0]);
  return y;
}

// Rows of very different sizes, as gradients are.
Matrix uneven_rows(const Shape& shape, std::string_view name) {
  Matrix x = Matrix::random(shape, name);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(x[i], static_cast<int>(i / shape[1] * 5 % 23) - 12);
  return x;
}

void expect_same(const Matrix& actual, const Matrix& expected, const char* what) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0;
  for (int64_t i = 0; i < expected.size(); ++i) largest = std::max(largest, std::abs(expected[i]));
  ASSERT_GT(largest, 0) << what;
  for (int64_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(actual[i], expected[i], 1e-12 * largest) << what << ", element " << i;
}

constexpr int64_t kTokens = 256, kLive = 200;

class RecipeTest : public testing::TestWithParam<Numerics> {
 protected:
  std::unique_ptr<Recipe> recipe(ExpertsImplementation experts = ExpertsImplementation::kGrouped) const {
    return make_recipe({.experts = experts,
                        .eight_bit = GetParam().scaling,
                        .power_of_two_scales = GetParam().power_of_two,
                        .multiplies_codes = GetParam().codes});
  }

  // No block divides the sizes, but of codes every one does.
  const int64_t in_ = GetParam().codes ? 256 : 150, out_ = GetParam().codes ? 384 : 140;

  TestCtx ctx_;
};

TEST_P(RecipeTest, Linear) {
  Matrix x = uneven_rows({kTokens, in_}, "x"), w = Matrix::random({out_, in_}, "w"),
         dy = uneven_rows({kTokens, out_}, "dy");
  std::fill_n(&dy[kLive * out_], (kTokens - kLive) * out_, 0.0);
  Matrix y({kTokens, out_}), dx({kTokens, in_}, 1), dw({out_, in_}, 1);
  for (int64_t i = kLive * in_; i < x.size(); ++i) x[i] = 1e9;  // no row that counts
  recipe()->linear(ctx_, {.x = x, .weight = w.tensor(), .y = y, .live = kLive});
  recipe()->linear_backward(
      ctx_,
      {.x = x, .weight = w.tensor(), .dy = dy, .dx = dx, .accumulate_dx = true, .dweight = {dw, true}, .live = kLive});
  Matrix live_x = rows_of(x, 0, kLive), live_dy = rows_of(dy, 0, kLive);
  Matrix want_dx = data_gradient(GetParam(), live_dy, w), want_dw = weight_gradient(GetParam(), live_dy, live_x);
  for (int64_t i = 0; i < want_dx.size(); ++i) want_dx[i] += 1;
  for (int64_t i = 0; i < want_dw.size(); ++i) want_dw[i] += 1;
  expect_same(rows_of(y, 0, kLive), forward(GetParam(), live_x, w), "y");
  expect_same(rows_of(dx, 0, kLive), want_dx, "dx");
  expect_same(dw, want_dw, "dweight");
}

// The same operands in fp32: only sums differ.
TEST_P(RecipeTest, LinearInFp32) {
  Matrix x = uneven_rows({kTokens, in_}, "x"), w = Matrix::random({out_, in_}, "w"), y({kTokens, out_});
  Buffer<float> narrow_x({kTokens, in_}), narrow_w({out_, in_}), narrow_y({kTokens, out_});
  std::transform(&x[0], &x[0] + x.size(), &narrow_x[0], [](double v) { return static_cast<float>(v); });
  std::transform(&w[0], &w[0] + w.size(), &narrow_w[0], [](double v) { return static_cast<float>(v); });
  recipe()->linear(ctx_, {.x = x, .weight = w.tensor(), .y = y, .live = kTokens});
  recipe()->linear(ctx_, {.x = narrow_x, .weight = narrow_w.tensor(), .y = narrow_y, .live = kTokens});
  expect_close(narrow_y, y, 20);
}

// Experts with many rows, with none, with one, with a block and one, and rows that are nobody's behind them.
struct Experts {
  int64_t hidden, ffn;
  std::vector<int32_t> count;
  std::vector<int32_t> begin = {0, 256, 256, 384};
  int64_t experts = 4, rows;
  Matrix x = filled("x", hidden), gate_up_weight = Matrix::random({experts, 2 * ffn, hidden}, "w1, w3"),
         down_weight = Matrix::random({experts, hidden, ffn}, "w2"), dy = filled("dy", hidden), weights{{rows}};
  Matrix gate_up{{rows, 2 * ffn}, 7}, y{{rows, hidden}, 7}, dx{{rows, hidden}, 7}, dweights{{rows}, 7},
      ddown{{experts, hidden, ffn}, 7}, dgate_up_weight{{experts, 2 * ffn, hidden}, 7};

  explicit Experts(const Numerics& numerics) : Experts(numerics.codes ? 256 : 40, numerics.codes ? 128 : 36) {}
  Experts(int64_t h, int64_t f) : Experts(h, f, {200, 0, 1, 129}, 768) {}
  // All begin at 0 where there are no rows.
  Experts(int64_t h, int64_t f, std::vector<int32_t> counts, int64_t all)
      : hidden(h), ffn(f), count(std::move(counts)), rows(all) {
    if (rows == 0) begin = {0, 0, 0, 0};
    for_each_row([&](int64_t r) { weights[r] = 0.2 + 0.1 * static_cast<double>(r % 7); });
  }

  RowGroups groups() const { return {begin.data(), count.data(), experts}; }

  template <class Use>
  void for_each_row(const Use& use) const {
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t r = begin[e]; r < begin[e] + count[e]; ++r) use(r);
  }

  Matrix filled(std::string_view name, int64_t columns) const {
    Matrix random = uneven_rows({rows, columns}, name), values({rows, columns});
    for_each_row([&](int64_t r) { std::copy_n(&random[r * columns], columns, &values[r * columns]); });
    return values;
  }

  void expect_same_rows(const Matrix& a, const Matrix& b) const {
    const int64_t columns = rows > 0 ? a.size() / rows : 0;
    for_each_row([&](int64_t r) {
      for (int64_t i = r * columns; i < (r + 1) * columns; ++i) ASSERT_EQ(a[i], b[i]) << r;
    });
  }

  void run(Ctx& ctx, const Recipe& recipe) {
    const Codes kept = recipe.push_kept_rows(ctx, {rows, hidden}, {experts, 2 * ffn, hidden});
    recipe.expert_mlp(ctx, {.x = x,
                            .gate_up_weight = gate_up_weight.tensor(),
                            .down_weight = down_weight.tensor(),
                            .row_weights = weights,
                            .groups = groups(),
                            .gate_up = gate_up,
                            .y = y,
                            .kept_rows = kept});
    Matrix again({rows, 2 * ffn}, 9);
    recipe.expert_gate_up(ctx, {.x = x, .weight = gate_up_weight.tensor(), .groups = groups(), .gate_up = again});
    expect_same_rows(again, gate_up);
    const Recipe::GateUpGradient gradient = recipe.push_gate_up_gradient(ctx, gate_up, down_weight.tensor());
    recipe.expert_mlp_backward(ctx, {.gate_up_weight = gate_up_weight.tensor(),
                                     .down_weight = down_weight.tensor(),
                                     .row_weights = weights,
                                     .groups = groups(),
                                     .gate_up = gate_up,
                                     .dy = dy,
                                     .dgate_up = gradient,
                                     .dx = dx,
                                     .drow_weights = dweights,
                                     .ddown_weight = {ddown}});
    recipe.expert_gate_up_weight_gradient(
        ctx, {.x = x, .kept_rows = {}, .dgate_up = gradient, .groups = groups(), .dweight = {dgate_up_weight}});
    if (!kept) return;
    Matrix from_codes({experts, 2 * ffn, hidden}, 9);
    recipe.expert_gate_up_weight_gradient(
        ctx, {.x = {}, .kept_rows = kept, .dgate_up = gradient, .groups = groups(), .dweight = {from_codes}});
    for (int64_t i = 0; i < from_codes.size(); ++i) ASSERT_EQ(from_codes[i], dgate_up_weight[i]);
  }
};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

TEST_P(RecipeTest, Experts) {
  Experts all(GetParam());
  all.run(ctx_, *recipe());
  const Numerics& n = GetParam();
  for (int64_t e = 0; e < all.experts; ++e) {
    SCOPED_TRACE(e);
    const int64_t begin = all.begin[e], count = all.count[e], f = all.ffn;
    Matrix w13 = matrix_of(all.gate_up_weight, e), w2 = matrix_of(all.down_weight, e);
    Matrix dw13 = matrix_of(all.dgate_up_weight, e), dw2 = matrix_of(all.ddown, e);
    if (count == 0) {
      for (int64_t i = 0; i < dw13.size(); ++i) ASSERT_EQ(dw13[i], 0);
      for (int64_t i = 0; i < dw2.size(); ++i) ASSERT_EQ(dw2[i], 0);
      continue;
    }
    Matrix x = rows_of(all.x, begin, count), dy = rows_of(all.dy, begin, count);
    Matrix gate_up = forward(n, x, w13), act({count, f}), dgate_up({count, 2 * f});
    Matrix dact = data_gradient(n, dy, w2), dweights({count, 1});
    for (int64_t r = 0; r < count; ++r)
      for (int64_t i = 0; i < f; ++i) {
        const double g = gate_up[r * 2 * f + i], u = gate_up[r * 2 * f + f + i], w = all.weights[begin + r];
        const double s = sigmoid(g), d = dact[r * f + i];
        act[r * f + i] = g * s * u * w;
        dgate_up[r * 2 * f + i] = d * w * u * (s + g * s * (1 - s));
        dgate_up[r * 2 * f + f + i] = d * w * g * s;
        dweights[r] += d * g * s * u;
      }
    expect_same(rows_of(all.y, begin, count), forward(n, act, w2), "y");
    if (!n.codes) expect_same(rows_of(all.gate_up, begin, count), dgate_up, "dgate_up");
    expect_same(rows_of(all.dx, begin, count), data_gradient(n, dgate_up, w13), "dx");
    expect_same(dw2, weight_gradient(n, dy, act), "dw2");
    expect_same(dw13, weight_gradient(n, dgate_up, x), "dw13");
    Matrix all_dweights({all.rows, 1});
    std::copy_n(&all.dweights[0], all.rows, &all_dweights[0]);
    expect_same(rows_of(all_dweights, begin, count), dweights, "dweights");
  }
}

TEST_P(RecipeTest, OneExpertAfterTheOtherHasTheSameBits) {
  Experts grouped(GetParam()), loop(GetParam());
  grouped.run(ctx_, *recipe());
  loop.run(ctx_, *recipe(ExpertsImplementation::kLoop));
  grouped.expect_same_rows(grouped.gate_up, loop.gate_up);
  for (const auto of : {&Experts::y, &Experts::dx, &Experts::ddown, &Experts::dgate_up_weight})
    for (int64_t i = 0; i < (grouped.*of).size(); ++i) ASSERT_EQ((grouped.*of)[i], (loop.*of)[i]);
}

// As of a rank to which no token went.
TEST_P(RecipeTest, ExpertsWithoutRows) {
  for (const auto how : {ExpertsImplementation::kGrouped, ExpertsImplementation::kLoop}) {
    Experts all(256, 128, {0, 0, 0, 0}, 0);
    all.run(ctx_, *recipe(how));
    for (const Matrix* gradient : {&all.ddown, &all.dgate_up_weight})
      for (int64_t i = 0; i < gradient->size(); ++i) ASSERT_EQ((*gradient)[i], 0);
  }
}

class CodesTest : public testing::TestWithParam<EightBitScaling> {};

// Experts of whose weights only the gate-up's fits in whole blocks are rounded throughout: what is computed again has
// the bits of forward (Experts::run compares).
TEST_P(CodesTest, OfExpertsAllOrNone) {
  TestCtx ctx;
  Experts experts(256, 192), rounded(256, 192);
  experts.run(ctx, *make_recipe({.eight_bit = GetParam(), .multiplies_codes = true}));
  rounded.run(ctx, *make_recipe({.eight_bit = GetParam()}));
  experts.expect_same_rows(experts.y, rounded.y);
}

// What is kept of a weight is that of its version: made once, in either direction, and anew for another version.
TEST_P(CodesTest, KeptAreOfTheirVersion) {
  TestCtx ctx;
  constexpr int64_t kSize = 256;
  Matrix x = Matrix::random({kSize, kSize}, "x"), w = Matrix::random({kSize, kSize}, "w"), y({kSize, kSize});
  const auto recipe = make_recipe({.eight_bit = GetParam(), .multiplies_codes = true});
  EXPECT_EQ(recipe->kept_bytes(), 0);
  recipe->keep(std::vector{Recipe::Weight{w.tensor(), 3, 0}}, true);
  EXPECT_GE(recipe->kept_bytes(), 2 * kSize * kSize);
  const auto forward = [&](const Recipe::Weight& weight) {
    recipe->linear(ctx, {.x = x, .weight = weight, .y = y, .live = kSize});
    return std::vector<double>(&y[0], &y[0] + y.size());
  };
  const auto backward = [&](const Recipe::Weight& weight) {
    recipe->linear_backward(ctx, {.x = x, .weight = weight, .dy = x, .dx = y, .live = kSize});
    return std::vector<double>(&y[0], &y[0] + y.size());
  };
  const auto before = forward(w.tensor()), before_back = backward(w.tensor());
  EXPECT_EQ(forward({w.tensor(), 3, 1}), before);
  EXPECT_EQ(backward({w.tensor(), 3, 1}), before_back);
  for (int64_t i = 0; i < w.size(); ++i) w[i] *= i % 3 - 1;
  EXPECT_EQ(forward({w.tensor(), 3, 1}), before);
  EXPECT_EQ(backward({w.tensor(), 3, 1}), before_back);
  const auto after = forward(w.tensor()), after_back = backward(w.tensor());
  EXPECT_NE(after, before);
  EXPECT_EQ(backward({w.tensor(), 3, 2}), after_back);
  EXPECT_EQ(forward({w.tensor(), 3, 2}), after);
}

// Codes have rounded operands' numbers: in fp64 only sums differ, of every kind of product, with groups of odd counts
// and none.
TEST_P(CodesTest, MultiplyWhatRoundingDoes) {
  TestCtx ctx;
  Experts codes(384, 256, {77, 0, 128, 3}, 768), rounded(384, 256, {77, 0, 128, 3}, 768);
  codes.run(ctx, *make_recipe({.eight_bit = GetParam(), .multiplies_codes = true}));
  rounded.run(ctx, *make_recipe({.eight_bit = GetParam()}));
  for (const auto of : {&Experts::ddown, &Experts::dgate_up_weight}) expect_same(codes.*of, rounded.*of, "weights");
  for (const auto of : {&Experts::y, &Experts::dx})
    for (int64_t e = 0; e < codes.experts; ++e)
      if (codes.count[e] > 0)
        expect_same(rows_of(codes.*of, codes.begin[e], codes.count[e]),
                    rows_of(rounded.*of, codes.begin[e], codes.count[e]), "rows");
}

INSTANTIATE_TEST_SUITE_P(Codes, CodesTest, testing::Values(EightBitScaling::kBlock, EightBitScaling::kMx));

INSTANTIATE_TEST_SUITE_P(Recipes, RecipeTest,
                         testing::Values(Numerics{"Plain", std::nullopt}, Numerics{"Mx", EightBitScaling::kMx},
                                         Numerics{"MxCodes", EightBitScaling::kMx, true, true},
                                         Numerics{"Block", EightBitScaling::kBlock},
                                         Numerics{"BlockFp32Scales", EightBitScaling::kBlock, false},
                                         Numerics{"BlockCodes", EightBitScaling::kBlock, true, true},
                                         Numerics{"BlockCodesFp32Scales", EightBitScaling::kBlock, false, true},
                                         Numerics{"Tensor", EightBitScaling::kTensor},
                                         Numerics{"TensorFp32Scales", EightBitScaling::kTensor, false}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace mixtune
