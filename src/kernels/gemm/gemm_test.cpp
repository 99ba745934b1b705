#include "kernels/gemm/gemm.h"

#include <omp.h>

#include <cstring>

#include "kernels/testing.h"

namespace mixtune {
namespace {

struct Product {
  int64_t m, n, k;
  bool trans_a, trans_b, accumulate;
};

template <class S>
Buffer<S> multiply(const Product& p) {
  TestCtx ctx;
  Buffer<S> a = Buffer<S>::random(p.trans_a ? Shape{p.k, p.m} : Shape{p.m, p.k}, "a");
  Buffer<S> b = Buffer<S>::random(p.trans_b ? Shape{p.n, p.k} : Shape{p.k, p.n}, "b");
  Buffer<S> c = Buffer<S>::random({p.m, p.n}, "c");
  gemm(ctx, {.a = a, .b = b, .c = c, .trans_a = p.trans_a, .trans_b = p.trans_b, .accumulate = p.accumulate});
  return c;
}

// The element by definition.
double element(const Product& p, int64_t i, int64_t j) {
  const Buffer<double> a = Buffer<double>::random({p.m, p.k}, "a"), b = Buffer<double>::random({p.k, p.n}, "b");
  double sum = p.accumulate ? Buffer<double>::random({p.m, p.n}, "c")[i * p.n + j] : 0;
  for (int64_t l = 0; l < p.k; ++l)
    sum += a[p.trans_a ? l * p.m + i : i * p.k + l] * b[p.trans_b ? j * p.k + l : l * p.n + j];
  return sum;
}

TEST(Gemm, EveryTranspositionAndShape) {
  for (const bool trans_a : {false, true})
    for (const bool trans_b : {false, true})
      for (const bool accumulate : {false, true})
        for (const auto& [m, n, k] :
             std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {3, 5, 7}, {257, 513, 70}, {300, 8, 33}}) {
          const Product p = {m, n, k, trans_a, trans_b, accumulate};
          const Buffer<double> oracle = multiply<double>(p);
          expect_close(multiply<float>(p), oracle, 2 * std::sqrt(k) + 2);
          for (const int64_t i : {int64_t{0}, m / 2, m - 1})
            for (const int64_t j : {int64_t{0}, n - 1}) EXPECT_NEAR(oracle[i * n + j], element(p, i, j), 1e-10);
        }
}

TEST(Gemm, NoInnerDimension) {
  const Buffer<float> zero = multiply<float>({2, 3, 0, false, false, false});
  const Buffer<float> kept = multiply<float>({2, 3, 0, false, false, true}), c = Buffer<float>::random({2, 3}, "c");
  for (int64_t i = 0; i < zero.size(); ++i) {
    EXPECT_EQ(zero[i], 0);
    EXPECT_EQ(kept[i], c[i]);
  }
}

TEST(Gemm, SameBitsOnAnyNumberOfThreads) {
  const Product p = {700, 600, 300, false, true, false};
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Buffer<float> one = multiply<float>(p);
  omp_set_num_threads(3);
  const Buffer<float> three = multiply<float>(p);
  omp_set_num_threads(threads);
  EXPECT_EQ(std::memcmp(&one[0], &three[0], one.size() * sizeof(float)), 0);
}

TEST(Gemm, RejectsShapesThatDoNotFit) {
  TestCtx ctx;
  Buffer<float> a({2, 3}), b({4, 5}), c({2, 5});
  EXPECT_THROW(gemm(ctx, {.a = a, .b = b, .c = c}), std::logic_error);
}

// Three groups in 512 rows: rows 128-129, none, rows 256-385.
constexpr int64_t kGemmRows = 512;
constexpr int32_t kBegin[] = {128, 256, 256}, kCount[] = {2, 0, 130};
constexpr RowGroups kGroups = {kBegin, kCount, 3};

int64_t group_of(int64_t row) {
  for (int64_t e = 0; e < 3; ++e)
    if (row >= kBegin[e] && row < kBegin[e] + kCount[e]) return e;
  return -1;
}

// Random in the rows of groups, 0 in the others.
template <class S>
Buffer<S> random_rows(int64_t columns, std::string_view name) {
  Buffer<S> rows = Buffer<S>::random({kGemmRows, columns}, name);
  for (int64_t i = 0; i < rows.size(); ++i)
    if (group_of(i / columns) < 0) rows[i] = 0;
  return rows;
}

template <class S>
Buffer<S> grouped(bool trans_w) {
  TestCtx ctx;
  Buffer<S> x = random_rows<S>(6, "x"), y({kGemmRows, 4}, S(7));
  Buffer<S> w = Buffer<S>::random(trans_w ? Shape{3, 4, 6} : Shape{3, 6, 4}, "w");
  grouped_gemm(ctx, {.x = x, .w = w, .y = y, .groups = kGroups, .trans_w = trans_w});
  return y;
}

TEST(GroupedGemm, EachGroupHasItsMatrixAndGapsAreZero) {
  for (const bool trans_w : {false, true}) {
    const Buffer<double> y = grouped<double>(trans_w), x = random_rows<double>(6, "x"),
                         w = Buffer<double>::random({3, 6, 4}, "w");
    expect_close(grouped<float>(trans_w), y, 8);
    for (int64_t r = 0; r < kGemmRows; ++r)
      for (int64_t j = 0; j < 4; ++j) {
        const int64_t e = group_of(r);
        double sum = 0;
        for (int64_t l = 0; e >= 0 && l < 6; ++l) sum += x[r * 6 + l] * w[e * 24 + (trans_w ? j * 6 + l : l * 4 + j)];
        EXPECT_NEAR(y[r * 4 + j], sum, 1e-12);
      }
  }
}

template <class S>
Buffer<S> wgrad(bool accumulate) {
  TestCtx ctx;
  Buffer<S> dy = random_rows<S>(4, "dy"), x = random_rows<S>(6, "x"), dw({3, 4, 6}, S(2));
  grouped_wgrad(ctx, {.dy = dy, .x = x, .dw = dw, .groups = kGroups, .accumulate = accumulate});
  return dw;
}

TEST(GroupedWgrad, SumsOverItsRowsAndEmptyGroupsGiveZero) {
  const Buffer<double> dy = random_rows<double>(4, "dy"), x = random_rows<double>(6, "x");
  for (const bool accumulate : {false, true}) {
    const Buffer<double> dw = wgrad<double>(accumulate);
    expect_close(wgrad<float>(accumulate), dw, 8);
    for (int64_t e = 0; e < 3; ++e)
      for (int64_t i = 0; i < 24; ++i) {
        double sum = accumulate ? 2 : 0;
        for (int64_t r = kBegin[e]; r < kBegin[e] + kCount[e]; ++r) sum += dy[r * 4 + i / 6] * x[r * 6 + i % 6];
        EXPECT_NEAR(dw[e * 24 + i], sum, 1e-12);
      }
  }
}

}  // namespace
}  // namespace mixtune
