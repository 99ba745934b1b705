#include "kernels/moe/adapted_swiglu.h"

#include "kernels/swiglu.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kAdaptedExperts = 3, kAdaptedRows = 3 * kRowAlignment, kAdaptedFfn = 32, kPairRank = 8;
constexpr double kPairScale = 1.75;

enum class Pairs { kBoth, kGate, kUp, kDown };

// Expert 1 has no rows; there are gaps behind the others, and a block of them at the end.
template <class S>
struct AdaptedSwigluCase {
  TestCtx ctx;
  Pairs which;
  std::vector<int32_t> begin{0, 0, kRowAlignment}, count{70, 0, 90};
  Buffer<S> gate_up = rows_of(2 * kAdaptedFfn, "gate_up"), dact = rows_of(kAdaptedFfn, "dact"),
            weights = rows_of(1, "weights");
  Buffer<S> u, v = rows_of(kPairRank, "v"), b, a = Buffer<S>::random({kAdaptedExperts, kPairRank, kAdaptedFfn}, "a");
  Buffer<S> act{{kAdaptedRows, kAdaptedFfn}}, act_again{{kAdaptedRows, kAdaptedFfn}},
      dgate_up{{kAdaptedRows, 2 * kAdaptedFfn}}, dweights{{kAdaptedRows}}, db,
      da = Buffer<S>::random({kAdaptedExperts, kPairRank, kAdaptedFfn}, "before");
  Buffer<S> full_dact{{kAdaptedRows, kAdaptedFfn}};

  explicit AdaptedSwigluCase(Pairs pairs)
      : which(pairs),
        u(rows_of(modules().size * kPairRank, "u")),
        b(Buffer<S>::random({kAdaptedExperts, modules().row_count(), kPairRank}, "b")),
        db({kAdaptedExperts, modules().row_count(), kPairRank}) {}

  int64_t expert_of(int64_t row) const {
    for (int64_t e = 0; e < kAdaptedExperts; ++e)
      if (row >= begin[e] && row < begin[e] + count[e]) return e;
    return -1;
  }
  Buffer<S> rows_of(int64_t columns, const char* name) const {
    Buffer<S> x = Buffer<S>::random({kAdaptedRows, columns}, name);
    for (int64_t i = 0; i < x.size(); ++i)
      if (expert_of(i / columns) < 0) x[i] = 0;
    return x;
  }
  AdaptedModules modules() const {
    AdaptedModules all;
    if (which != Pairs::kUp) all.add({0, kAdaptedFfn});
    if (which != Pairs::kGate) all.add({kAdaptedFfn, kAdaptedFfn});
    return all;
  }
  RowGroups groups() const { return {begin.data(), count.data(), kAdaptedExperts}; }
  GateUpPairs gate_up_pairs() {
    if (which == Pairs::kDown) return {};
    return {.u = u, .b = b, .modules = modules(), .scale = kPairScale};
  }
  DownPair down_pair() { return which == Pairs::kBoth || which == Pairs::kDown ? DownPair{v, a} : DownPair{}; }

  void forward() {
    adapted_swiglu_forward(
        ctx,
        {.gate_up = gate_up, .row_weights = weights, .groups = groups(), .gate_up_pairs = gate_up_pairs(), .act = act});
  }
  void backward() {
    const bool up = which != Pairs::kDown, down = static_cast<bool>(down_pair().a);
    adapted_swiglu_backward(ctx, {.gate_up = gate_up,
                                  .row_weights = weights,
                                  .dact = dact,
                                  .groups = groups(),
                                  .gate_up_pairs = gate_up_pairs(),
                                  .down_pair = down_pair(),
                                  .dgate_up = dgate_up,
                                  .drow_weights = dweights,
                                  .act = act_again,
                                  .db = up ? Tensor(db) : Tensor{},
                                  .da = down ? Tensor(da) : Tensor{},
                                  .accumulate_da = true});
  }
};

// gate_up and dact with their parts, by plain loops.
Buffer<double> completed_gate_up(AdaptedSwigluCase<double>& c) {
  Buffer<double> full = c.gate_up;
  const AdaptedModules modules = c.modules();
  for (int64_t r = 0; r < kAdaptedRows; ++r) {
    const int64_t e = c.expert_of(r);
    if (e < 0 || c.which == Pairs::kDown) continue;
    for (int64_t m = 0; m < modules.size; ++m)
      for (int64_t i = 0; i < kAdaptedFfn; ++i)
        for (int64_t j = 0; j < kPairRank; ++j)
          full[r * 2 * kAdaptedFfn + modules.rows[m].first + i] +=
              kPairScale * c.u[(r * modules.size + m) * kPairRank + j] *
              c.b[((e * modules.size + m) * kAdaptedFfn + i) * kPairRank + j];
  }
  return full;
}
Buffer<double> completed_dact(AdaptedSwigluCase<double>& c) {
  Buffer<double> full = c.dact;
  for (int64_t r = 0; r < kAdaptedRows; ++r)
    for (int64_t i = 0; i < kAdaptedFfn && c.expert_of(r) >= 0 && c.down_pair().a; ++i)
      for (int64_t j = 0; j < kPairRank; ++j)
        full[r * kAdaptedFfn + i] += c.v[r * kPairRank + j] * c.a[(c.expert_of(r) * kPairRank + j) * kAdaptedFfn + i];
  return full;
}

class AdaptedSwigluTest : public testing::TestWithParam<Pairs> {};

// What swiglu.h makes of the whole operands; and sums of its results, written out.
TEST_P(AdaptedSwigluTest, IsSwigluOfTheSums) {
  AdaptedSwigluCase<double> c(GetParam());
  Buffer<double> gate_up = completed_gate_up(c), dact = completed_dact(c), act({kAdaptedRows, kAdaptedFfn}),
                 again({kAdaptedRows, kAdaptedFfn}), dgate_up({kAdaptedRows, 2 * kAdaptedFfn}),
                 dweights({kAdaptedRows});
  const Buffer<double> da_before = c.da;
  swiglu_forward(c.ctx, gate_up, c.weights, act);
  swiglu_backward(c.ctx, {gate_up, c.weights, dact, dgate_up, dweights, again});
  c.forward();
  c.backward();
  for (int64_t i = 0; i < act.size(); ++i) ASSERT_NEAR(c.act[i], act[i], 1e-12) << i;
  for (int64_t i = 0; i < act.size(); ++i) ASSERT_NEAR(c.act_again[i], act[i], 1e-12) << i;
  for (int64_t i = 0; i < dgate_up.size(); ++i) ASSERT_NEAR(c.dgate_up[i], dgate_up[i], 1e-12) << i;
  for (int64_t i = 0; i < kAdaptedRows; ++i) ASSERT_NEAR(c.dweights[i], dweights[i], 1e-11) << i;

  const AdaptedModules modules = c.modules();
  for (int64_t e = 0; e < kAdaptedExperts; ++e)
    for (int64_t j = 0; j < kPairRank; ++j)
      for (int64_t i = 0; i < kAdaptedFfn; ++i) {
        double da = da_before[(e * kPairRank + j) * kAdaptedFfn + i];
        double db[2] = {};
        for (int64_t r = c.begin[e]; r < c.begin[e] + c.count[e]; ++r) {
          da += c.v[r * kPairRank + j] * act[r * kAdaptedFfn + i];
          for (int64_t m = 0; m < modules.size; ++m)
            db[m] += kPairScale * dgate_up[r * 2 * kAdaptedFfn + modules.rows[m].first + i] *
                     c.u[(r * modules.size + m) * kPairRank + j];
        }
        if (c.down_pair().a) {
          ASSERT_NEAR(c.da[(e * kPairRank + j) * kAdaptedFfn + i], da, 1e-10);
        }
        for (int64_t m = 0; m < modules.size && c.which != Pairs::kDown; ++m)
          ASSERT_NEAR(c.db[((e * modules.size + m) * kAdaptedFfn + i) * kPairRank + j], db[m], 1e-10);
      }
}

TEST_P(AdaptedSwigluTest, InFp32) {
  AdaptedSwigluCase<double> oracle(GetParam());
  AdaptedSwigluCase<float> product(GetParam());
  oracle.forward(), oracle.backward();
  product.forward(), product.backward();
  expect_close(product.act, oracle.act, 64);
  expect_close(product.dgate_up, oracle.dgate_up, 128);
  expect_close(product.dweights, oracle.dweights, 128);
  if (GetParam() != Pairs::kDown) expect_close(product.db, oracle.db, 128);
  expect_close(product.da, oracle.da, 128);
}

INSTANTIATE_TEST_SUITE_P(Of, AdaptedSwigluTest, testing::Values(Pairs::kBoth, Pairs::kGate, Pairs::kUp, Pairs::kDown));

// The activations are wanted by nobody, and the gradient stands where gate_up did: the same numbers.
TEST(AdaptedSwiglu, InPlaceAndWithoutActivations) {
  AdaptedSwigluCase<float> apart(Pairs::kBoth), together(Pairs::kBoth);
  apart.backward();
  adapted_swiglu_backward(together.ctx, {.gate_up = together.gate_up,
                                         .row_weights = together.weights,
                                         .dact = together.dact,
                                         .groups = together.groups(),
                                         .gate_up_pairs = together.gate_up_pairs(),
                                         .down_pair = together.down_pair(),
                                         .dgate_up = together.gate_up,
                                         .drow_weights = together.dweights,
                                         .act = {},
                                         .db = together.db,
                                         .da = together.da,
                                         .accumulate_da = true});
  for (int64_t i = 0; i < apart.dgate_up.size(); ++i) ASSERT_EQ(together.gate_up[i], apart.dgate_up[i]);
  for (int64_t i = 0; i < apart.da.size(); ++i) ASSERT_EQ(together.da[i], apart.da[i]);
  for (int64_t i = 0; i < apart.db.size(); ++i) ASSERT_EQ(together.db[i], apart.db[i]);
}

// An expert without rows, of a batch without any: the gradients are 0, whatever was there.
TEST(AdaptedSwiglu, WithoutRows) {
  AdaptedSwigluCase<float> c(Pairs::kBoth);
  const std::vector<int32_t> none(kAdaptedExperts, 0);
  for (int64_t i = 0; i < c.db.size(); ++i) c.db[i] = 7;
  GateUpPairs pairs = c.gate_up_pairs();
  pairs.u = pairs.u.slice(0, 0);
  const auto no_rows = [](const Tensor& x) {
    return x.slice(0, 0);
  };
  adapted_swiglu_backward(c.ctx, {.gate_up = no_rows(c.gate_up),
                                  .row_weights = no_rows(c.weights),
                                  .dact = no_rows(c.dact),
                                  .groups = {none.data(), none.data(), kAdaptedExperts},
                                  .gate_up_pairs = pairs,
                                  .down_pair = {no_rows(c.v), c.a},
                                  .dgate_up = no_rows(c.dgate_up),
                                  .drow_weights = no_rows(c.dweights),
                                  .act = {},
                                  .db = c.db,
                                  .da = c.da});
  for (int64_t i = 0; i < c.db.size(); ++i) ASSERT_EQ(c.db[i], 0);
  for (int64_t i = 0; i < c.da.size(); ++i) ASSERT_EQ(c.da[i], 0);
}

TEST(AdaptedSwiglu, RanksAndColumns) {
  TestCtx ctx;
  const auto takes = [&](int64_t rank, int64_t ffn) {
    return adapted_swiglu_takes(ctx, {DType::kF32, 8, rank, ffn});
  };
  EXPECT_TRUE(takes(64, 14336));
  EXPECT_FALSE(takes(72, 14336));
  EXPECT_FALSE(takes(4, 14336));
  EXPECT_FALSE(takes(16, 48));
}

}  // namespace
}  // namespace mixtune
