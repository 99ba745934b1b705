// Adapters against their definition, in plain loops and float64.
#include "precision/adapter.h"

#include <optional>
#include <vector>

#include "kernels/testing.h"

namespace mixtune {
namespace {

using Matrix = Buffer<double>;

constexpr int64_t kAdapterRows = 2 * kRowAlignment, kIn = 13, kOut = 11, kRank = 3;
constexpr double kScale = 1.75;

// Two modules of a weight, with rows before, between and behind that have no pair.
const AdaptedModules kModules = [] {
  AdaptedModules modules;
  modules.add({1, 4});
  modules.add({7, 3});
  return modules;
}();

// Rows of one weight, or of two experts with gaps behind.
struct AdapterCase {
  const char* name;
  bool of_experts;
  double share;
};

class AdapterTest : public testing::TestWithParam<AdapterCase> {
 protected:
  // The expert of a row; -1: a gap.
  int64_t expert_of(int64_t row) const {
    if (!GetParam().of_experts) return 0;
    for (int64_t e = 0; e < 2; ++e)
      if (row >= begin_[e] && row < begin_[e] + count_[e]) return e;
    return -1;
  }
  Shape shape(int64_t rows, int64_t columns) const {
    return GetParam().of_experts ? Shape{2, rows, columns} : Shape{rows, columns};
  }
  const RowGroups* groups() const { return GetParam().of_experts ? &groups_ : nullptr; }

  Matrix rows_of(int64_t columns, const char* name) const {
    Matrix x = Matrix::random({kAdapterRows, columns}, name);
    for (int64_t i = 0; i < x.size(); ++i)
      if (expert_of(i / columns) < 0) x[i] = 0;
    return x;
  }

  // What A sees of x, or gives back to it.
  double left(int64_t row, int64_t k, double x) const {
    if (GetParam().share == 0) return x;
    const uint64_t element = static_cast<uint64_t>(numbers_[row] * kIn + k);
    return is_dropped(mix_key(kKey), element, drop_threshold(GetParam().share)) ? 0 : x / (1 - GetParam().share);
  }

  double a(int64_t e, int64_t m, int64_t i, int64_t k) const { return a_[((e * 2 + m) * kRank + i) * kIn + k]; }
  double b(int64_t e, int64_t m, int64_t n, int64_t i) const { return b_[(e * 7 + (m ? 4 : 0) + n) * kRank + i]; }
  double u(int64_t row, int64_t m, int64_t i) const {
    double sum = 0;
    for (int64_t k = 0; k < kIn; ++k) sum += a(expert_of(row), m, i, k) * left(row, k, x_[row * kIn + k]);
    return sum;
  }
  double v(int64_t row, int64_t m, int64_t i) const {
    double sum = 0;
    for (int64_t n = 0; n < kModules.rows[m].count; ++n)
      sum += kScale * b(expert_of(row), m, n, i) * dy_[row * kOut + kModules.rows[m].first + n];
    return sum;
  }

  Adapter adapter() {
    Adapter adapter = {
        .a = a_, .b = b_, .modules = kModules, .scale = kScale, .da = {da_, false}, .db = {db_, true}, .v = v_};
    if (GetParam().share > 0) adapter.dropout = {.share = GetParam().share, .key = kKey, .numbers = numbers_};
    return adapter;
  }

  static constexpr uint64_t kKey = 5;
  int32_t begin_[2] = {0, kRowAlignment}, count_[2] = {kRowAlignment - 5, 9};
  RowGroups groups_ = {begin_, count_, 2};
  TestCtx ctx_;
  Buffer<int64_t> numbers_ = [] {
    Buffer<int64_t> numbers({kAdapterRows});
    for (int64_t r = 0; r < kAdapterRows; ++r) numbers[r] = (int64_t{1} << 33) + 3 * r;
    return numbers;
  }();
  Matrix a_ = Matrix::random(shape(2 * kRank, kIn), "a"), b_ = Matrix::random(shape(7, kRank), "b"),
         x_ = rows_of(kIn, "x"), dy_ = rows_of(kOut, "dy"), da_{shape(2 * kRank, kIn), 9}, db_{shape(7, kRank), 2},
         v_{{kAdapterRows, 2 * kRank}, 7};
};

TEST_P(AdapterTest, WritesForEachModuleItsPartOfWhatIsLeftOfX) {
  Matrix y({kAdapterRows, kOut}, 2);
  EXPECT_TRUE(write_adapter(ctx_, adapter(), {.x = x_, .y = y, .groups = groups()}));
  for (int64_t row = 0; row < kAdapterRows; ++row) {
    std::vector<double> expected(kOut);
    for (int64_t m = 0; m < 2 && expert_of(row) >= 0; ++m)
      for (int64_t n = 0; n < kModules.rows[m].count; ++n)
        for (int64_t i = 0; i < kRank; ++i)
          expected[kModules.rows[m].first + n] += kScale * b(expert_of(row), m, n, i) * u(row, m, i);
    for (int64_t n = 0; n < kOut; ++n) ASSERT_NEAR(y[row * kOut + n], expected[n], 1e-11) << row << " " << n;
  }
}

TEST_P(AdapterTest, ItsGradientPassesTheSameElements) {
  Matrix dx({kAdapterRows, kIn}, 2);
  EXPECT_TRUE(write_adapter_data_gradient(ctx_, adapter(), {.dy = dy_, .dx = dx, .groups = groups()}));
  for (int64_t row = 0; row < kAdapterRows; ++row)
    for (int64_t k = 0; k < kIn; ++k) {
      double sum = 0;
      for (int64_t m = 0; m < 2 && expert_of(row) >= 0; ++m)
        for (int64_t i = 0; i < kRank; ++i) sum += v(row, m, i) * a(expert_of(row), m, i, k);
      ASSERT_NEAR(dx[row * kIn + k], left(row, k, sum), 1e-11) << row << " " << k;
    }
}

TEST_P(AdapterTest, FactorsHaveTheirGradients) {
  Matrix dx({kAdapterRows, kIn});
  write_adapter_data_gradient(ctx_, adapter(), {.dy = dy_, .dx = dx, .groups = groups()});  // leaves v
  adapter_weight_gradient(ctx_, adapter(), {.x = x_, .dy = dy_, .groups = groups()});
  const int64_t experts = GetParam().of_experts ? 2 : 1;
  Matrix da(da_.tensor().shape), db(db_.tensor().shape, 2);
  for (int64_t row = 0; row < kAdapterRows; ++row) {
    const int64_t e = expert_of(row);
    for (int64_t m = 0; m < 2 && e >= 0; ++m)
      for (int64_t i = 0; i < kRank; ++i) {
        const double vi = v(row, m, i), ui = u(row, m, i);
        for (int64_t k = 0; k < kIn; ++k)
          da[((e * 2 + m) * kRank + i) * kIn + k] += vi * left(row, k, x_[row * kIn + k]);
        for (int64_t n = 0; n < kModules.rows[m].count; ++n)
          db[(e * 7 + (m ? 4 : 0) + n) * kRank + i] += kScale * dy_[row * kOut + kModules.rows[m].first + n] * ui;
      }
  }
  ASSERT_EQ(da.size(), experts * 2 * kRank * kIn);
  for (int64_t i = 0; i < da.size(); ++i) ASSERT_NEAR(da_[i], da[i], 1e-10) << i;
  for (int64_t i = 0; i < db.size(); ++i) ASSERT_NEAR(db_[i], db[i], 1e-10) << i;
}

// It takes no copy of x for a pair that is frozen.
TEST_P(AdapterTest, AFrozenPairTakesNothing) {
  Adapter frozen = adapter();
  frozen.da = frozen.db = {};
  adapter_weight_gradient(ctx_, frozen, {.x = x_, .dy = dy_, .groups = groups()});
  EXPECT_EQ(ctx_.stack.peak(), 0u);
}

TEST_P(AdapterTest, WritesNothingWithoutOne) {
  Matrix y({kAdapterRows, kOut}, 2), dx({kAdapterRows, kIn}, 2);
  EXPECT_FALSE(write_adapter(ctx_, {}, {.x = x_, .y = y, .groups = groups()}));
  EXPECT_FALSE(write_adapter_data_gradient(ctx_, {}, {.dy = dy_, .dx = dx, .groups = groups()}));
  EXPECT_EQ(y[0], 2);
  EXPECT_EQ(dx[0], 2);
}

INSTANTIATE_TEST_SUITE_P(Cases, AdapterTest,
                         testing::Values(AdapterCase{"Dense", false, 0}, AdapterCase{"DenseDropout", false, 0.4},
                                         AdapterCase{"Experts", true, 0}, AdapterCase{"ExpertsDropout", true, 0.4}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace mixtune
