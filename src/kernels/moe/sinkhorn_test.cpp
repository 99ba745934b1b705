#include "kernels/moe/sinkhorn.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/moe/router.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

struct SinkhornFactors {
  std::vector<double> rows, columns;
  int rounds = 0;
};

// The iteration as Megatron-Core has it, in float64 and with exponentials as they are.
SinkhornFactors literal_sinkhorn(const Buffer<double>& logits, int64_t tokens, int64_t experts) {
  SinkhornFactors b = {std::vector<double>(tokens), std::vector<double>(experts, 1)};
  for (double error = 1; error > 1e-4 && b.rounds < 100; ++b.rounds) {
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int64_t e = 0; e < experts; ++e) sum += b.columns[e] * std::exp(logits[t * experts + e]);
      b.rows[t] = 1.0 / static_cast<double>(tokens) / (sum + 1e-8);
    }
    const std::vector<double> before = b.columns;
    error = 0;
    for (int64_t e = 0; e < experts; ++e) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t) sum += b.rows[t] * std::exp(logits[t * experts + e]);
      b.columns[e] = 1.0 / static_cast<double>(experts) / (sum + 1e-8);
      error += std::abs(b.columns[e] - before[e]) / static_cast<double>(experts);
    }
  }
  return b;
}

template <class S>
struct SinkhornCase {
  int64_t tokens, live, experts;
  Buffer<S> logits, offsets{{experts}, S(9)};
  TestCtx ctx = {};

  void run() { sinkhorn(ctx, {.logits = logits, .live = live, .offsets = offsets}); }
};

// Logits of normal deviation, of experts that are `uneven` times as far apart as tokens make them.
Buffer<double> uneven_logits(int64_t tokens, int64_t experts, double deviation, double uneven) {
  Buffer<double> logits = Buffer<double>::random({tokens, experts}, "logits", deviation);
  const auto of_expert = Buffer<double>::random({experts}, "experts", deviation * uneven);
  for (int64_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(logits[i] + of_expert[i % experts]);
  return logits;
}

Buffer<float> rounded(const Buffer<double>& from, Shape shape) {
  Buffer<float> to(shape);
  for (int64_t i = 0; i < from.size(); ++i) to[i] = static_cast<float>(from[i]);
  return to;
}

// Of all tokens, in float64 and as the product has it.
void expect_literal(const Buffer<double>& logits, int64_t tokens, int64_t experts, double bound) {
  const SinkhornFactors expected = literal_sinkhorn(logits, tokens, experts);
  SinkhornCase<double> oracle{tokens, tokens, experts, logits};
  SinkhornCase<float> product{tokens, tokens, experts, rounded(logits, {tokens, experts})};
  oracle.run();
  product.run();
  for (int64_t e = 0; e < experts; ++e) {
    EXPECT_NEAR(oracle.offsets[e], std::log(expected.columns[e]), 1e-11) << e;
    EXPECT_NEAR(product.offsets[e], std::log(expected.columns[e]), bound) << e;
  }
}

TEST(Sinkhorn, IsTheIterationAsItIsWrittenDown) {
  for (const auto& [tokens, experts] : {std::pair<int64_t, int64_t>{1, 8}, {30, 5}, {700, 8}, {513, 33}, {40, 1}})
    for (const double deviation : {0.3, 1.0, 2.0}) {
      SCOPED_TRACE(testing::Message() << "T" << tokens << " E" << experts << " deviation " << deviation);
      expect_literal(uneven_logits(tokens, experts, deviation, 1), tokens, experts, 1e-5);
    }
}

// What each row has of its own, up to what float64 still has an exponential of, goes into its factor: also where
// epsilon is as large as the row's sum, or larger.
TEST(Sinkhorn, TakesTheLargestLogitOutOfARowWithoutChangingAnything) {
  constexpr int64_t tokens = 60, experts = 6;
  Buffer<double> logits = uneven_logits(tokens, experts, 1, 1);
  for (int64_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(logits[i] + std::vector<double>{0, 600, -15, -19, -30, 90}[i / experts % 6]);
  expect_literal(logits, tokens, experts, 1e-4);  // of logits that are rounded at 600
}

TEST(Sinkhorn, EndsAfterTheMostRounds) {
  constexpr int64_t tokens = 200, experts = 8;
  const Buffer<double> logits = uneven_logits(tokens, experts, 4, 1.5);
  ASSERT_EQ(literal_sinkhorn(logits, tokens, experts).rounds, kSinkhornMostRounds);
  expect_literal(logits, tokens, experts, 1e-4);
}

TEST(Sinkhorn, BalancesRowsAndColumns) {
  constexpr int64_t tokens = 1000, experts = 8;
  SinkhornCase<float> b{tokens, tokens, experts, rounded(uneven_logits(tokens, experts, 1, 2), {tokens, experts})};
  b.run();
  std::vector<double> columns(experts, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    double row = 0;
    for (int64_t e = 0; e < experts; ++e) row += std::exp(b.logits[t * experts + e] + b.offsets[e]);
    for (int64_t e = 0; e < experts; ++e)
      columns[e] += std::exp(b.logits[t * experts + e] + b.offsets[e]) / row / tokens;
  }
  for (const double column : columns) EXPECT_NEAR(column, 1.0 / experts, 1e-3);
}

TEST(Sinkhorn, DeadRowsAreNotCounted) {
  const Buffer<double> logits = uneven_logits(50, 5, 1, 1);
  SinkhornCase<double> all{50, 41, 5, logits}, none{50, 0, 5, logits};
  for (int64_t i = 41 * 5; i < all.logits.size(); ++i) all.logits[i] = std::nan("");
  all.run();
  none.run();
  const SinkhornFactors expected = literal_sinkhorn(logits, 41, 5);
  for (int64_t e = 0; e < 5; ++e) {
    EXPECT_NEAR(all.offsets[e], std::log(expected.columns[e]), 1e-11);
    EXPECT_EQ(none.offsets[e], 0);
  }
}

// Among them logits whose exponentials are infinite, or 0, or that leave a factor nothing: half of the tokens want one
// expert and no other at all, while those of the other half go on changing.
TEST(Sinkhorn, FiniteLogitsGiveNoNaN) {
  constexpr int64_t tokens = 64, experts = 4;
  constexpr float kMost = std::numeric_limits<float>::max();
  const Buffer<float> random = rounded(uneven_logits(tokens, experts, 6, 1), {tokens, experts});
  for (const std::function<float(int64_t, int64_t)>&logit : std::vector<std::function<float(int64_t, int64_t)>>{
           [](int64_t, int64_t) { return 1e4F; }, [](int64_t, int64_t) { return -1e4F; },
           [](int64_t t, int64_t e) { return (t + e) % 2 == 0 ? kMost : -kMost; },
           [](int64_t t, int64_t) { return t % 2 == 0 ? kMost : -kMost; },
           [&](int64_t t, int64_t e) { return 100 * random[t * experts + e]; },
           [&](int64_t t, int64_t e) {
             return t % 2 == 0 ? (e == 0 ? 0.F : -500.F) : (e < 2 ? -500.F : random[t * experts + e]);
           }}) {
    SinkhornCase<float> b{tokens, tokens, experts, Buffer<float>({tokens, experts})};
    for (int64_t i = 0; i < b.logits.size(); ++i) b.logits[i] = logit(i / experts, i % experts);
    b.run();
    for (int64_t e = 0; e < experts; ++e) EXPECT_FALSE(std::isnan(b.offsets[e])) << b.logits[0];
  }
}

TEST(Sinkhorn, ANaNEndsItAndExpertsAreChosen) {
  SinkhornCase<float> b{9, 9, 4, rounded(uneven_logits(9, 4, 1, 1), {9, 4})};
  b.logits[5] = std::nanf("");
  b.run();
  Buffer<int32_t> chosen({9, 2});
  Buffer<float> weights({9, 2});
  Buffer<double> stats({2, 4});
  router_forward(b.ctx, {.logits = b.logits,
                         .live = 9,
                         .experts = chosen,
                         .weights = weights,
                         .stats = stats,
                         .scores = {Scoring::kPreSoftmax},
                         .offsets = b.offsets});
  for (int64_t t = 0; t < 9; ++t) {
    EXPECT_NE(chosen[2 * t], chosen[2 * t + 1]);
    for (const int64_t slot : {0, 1}) EXPECT_TRUE(chosen[2 * t + slot] >= 0 && chosen[2 * t + slot] < 4);
  }
}

// The choice is that of the balanced scores themselves, ranked at once; weights are of the logits.
TEST(Sinkhorn, ChoosesByTheBalancedScores) {
  constexpr int64_t tokens = 300, experts = 6, k = 2;
  SinkhornCase<float> b{tokens, 280, experts, rounded(uneven_logits(tokens, experts, 1, 1.5), {tokens, experts})};
  b.run();
  Buffer<double> logits({tokens, experts});
  for (int64_t i = 0; i < logits.size(); ++i) logits[i] = b.logits[i];
  const SinkhornFactors expected = literal_sinkhorn(logits, b.live, experts);
  Buffer<int32_t> chosen({tokens, k}), plain({tokens, k});
  Buffer<float> weights({tokens, k}), unused({tokens, k});
  Buffer<double> stats({2, experts}), plain_stats({2, experts});
  RouterForward args = {.logits = b.logits,
                        .live = b.live,
                        .experts = plain,
                        .weights = unused,
                        .stats = plain_stats,
                        .scores = {Scoring::kPreSoftmax}};
  router_forward(b.ctx, args);
  args.experts = chosen;
  args.weights = weights;
  args.stats = stats;
  args.offsets = b.offsets;
  router_forward(b.ctx, args);
  for (int64_t t = 0; t < b.live; ++t) {
    std::vector<int32_t> order(experts);
    std::iota(order.begin(), order.end(), 0);
    const double* l = &logits[t * experts];
    std::ranges::stable_sort(order, std::greater(),
                             [&](int32_t e) { return expected.columns[e] * std::exp(l[e]) * expected.rows[t]; });
    double sum = 0;
    for (int64_t e = 0; e < experts; ++e) sum += std::exp(l[e]);
    for (int64_t slot = 0; slot < k; ++slot) {
      EXPECT_EQ(chosen[t * k + slot], order[slot]) << t;
      EXPECT_NEAR(weights[t * k + slot], std::exp(l[order[slot]]) / sum, 1e-6);
    }
  }
  for (int64_t i = b.live * k; i < chosen.size(); ++i) EXPECT_EQ(chosen[i], -1);
  const auto most = [&](const Buffer<double>& of) {
    return *std::max_element(&of[0], &of[0] + experts);
  };
  EXPECT_GT(most(plain_stats), 0.6 * static_cast<double>(b.live));
  EXPECT_LT(most(stats), 0.4 * static_cast<double>(b.live));  // a third is even
}

}  // namespace
}  // namespace mixtune
