// The numbers of a router's health, each against its formula written out in float64.
#include "kernels/moe/router_health.h"

#include <omp.h>

#include <array>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kHealthRows = 700, kHealthLive = 650, kHealthExperts = 5;
using HealthTally = std::array<double, kHealthExperts + kTallyNumbers>;

template <class S>
struct HealthInputs {
  TestCtx ctx;
  Buffer<S> logits = Buffer<S>::random({kHealthRows, kHealthExperts}, "logits", 2);
  Buffer<double> stats{{2, kHealthExperts}}, tally{{kHealthExperts + kTallyNumbers}};

  HealthInputs() {
    for (int64_t i = 0; i < stats.size(); ++i) stats[i] = static_cast<double>(3 * i + 1);
  }
  HealthTally add(int64_t live = kHealthLive) {
    router_health(ctx, {.logits = logits, .live = live, .stats = stats, .tally = tally});
    HealthTally numbers;
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = tally[static_cast<int64_t>(i)];
    return numbers;
  }
  HealthTally expected() const {
    HealthTally numbers = {1, 4, 7, 10, 13, kHealthLive, 0, 0};
    for (int64_t t = 0; t < kHealthLive; ++t) {
      const S* row = &logits[t * kHealthExperts];
      double sum = 0;
      for (int64_t e = 0; e < kHealthExperts; ++e) sum += std::exp(double{row[e]});
      for (int64_t e = 0; e < kHealthExperts; ++e) {
        const double p = std::exp(double{row[e]}) / sum;
        numbers[kHealthExperts + kTallyEntropy] -= p * std::log(p);
        numbers[kHealthExperts + kTallySquares] += double{row[e]} * double{row[e]};
      }
    }
    return numbers;
  }
};

TEST(RouterHealth, AddsCountsEntropyAndSquares) {
  HealthInputs<double> oracle;
  const HealthTally expected = oracle.expected();
  for (const double times : {1.0, 2.0}) {
    const HealthTally actual = oracle.add();
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], times * expected[i], 1e-12 * expected[i]) << i;
  }
  const HealthTally single = HealthInputs<float>().add();
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(single[i], expected[i], 1e-6 * expected[i]) << i;
}

TEST(RouterHealth, EntropyIsTheLogarithmWhereAllAreAsLikelyAndNothingWhereOneIsCertain) {
  HealthInputs<float> health;
  health.logits = Buffer<float>({kHealthRows, kHealthExperts}, 7);
  EXPECT_NEAR(health.add()[kHealthExperts + kTallyEntropy], kHealthLive * std::log(5.0), 1e-9);
  health.tally = Buffer<double>({kHealthExperts + kTallyNumbers});
  for (int64_t t = 0; t < kHealthRows; ++t) health.logits[t * kHealthExperts + 2] = 1e30f;
  EXPECT_EQ(health.add()[kHealthExperts + kTallyEntropy], 0);
}

// Dead rows hold anything.
TEST(RouterHealth, ReadsLiveRowsAlone) {
  HealthInputs<float> health;
  const HealthTally expected = health.add();
  health.tally = Buffer<double>({kHealthExperts + kTallyNumbers});
  for (int64_t i = kHealthLive * kHealthExperts; i < kHealthRows * kHealthExperts; ++i) health.logits[i] = NAN;
  EXPECT_EQ(health.add(), expected);
  EXPECT_EQ(HealthInputs<float>().add(0), (HealthTally{1, 4, 7, 10, 13, 0, 0, 0}));
}

TEST(RouterHealth, IsTheSameForAnyNumberOfThreads) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const HealthTally one = HealthInputs<float>().add();
  omp_set_num_threads(3);
  EXPECT_EQ(HealthInputs<float>().add(), one);
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace mixtune
