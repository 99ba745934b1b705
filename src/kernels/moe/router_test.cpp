#include "kernels/moe/router.h"

#include <cmath>
#include <vector>

#include "kernels/moe/router_testing.h"

namespace mixtune {
namespace {

TEST(Router, TakesTheLargestRenormalisedAndCounts) {
  RoutedTokens<double> router{5, 3};
  router.forward();
  std::vector<double> counts(5, 0), probabilities(5, 0);
  for (int64_t t = 0; t < kLive; ++t) {
    const double* logits = &router.logits[t * 5];
    double all = 0, top = 0;
    for (int e = 0; e < 5; ++e) all += std::exp(logits[e]);
    for (int e = 0; e < 5; ++e) probabilities[e] += std::exp(logits[e]) / all;
    for (int slot = 0; slot < 3; ++slot) top += std::exp(logits[router.chosen[t * 3 + slot]]);
    for (int slot = 0; slot < 3; ++slot) {
      const int32_t e = router.chosen[t * 3 + slot];
      ++counts[e];
      EXPECT_NEAR(router.weights[t * 3 + slot], std::exp(logits[e]) / top, 1e-14);
      if (slot > 0) {
        EXPECT_GE(logits[router.chosen[t * 3 + slot - 1]], logits[e]);
      }
    }
    for (int e = 0; e < 5; ++e) {
      const int32_t* chosen = &router.chosen[t * 3];
      if (std::find(chosen, chosen + 3, e) == chosen + 3) {
        EXPECT_LE(logits[e], logits[chosen[2]]);
      }
    }
  }
  for (int e = 0; e < 5; ++e) {
    EXPECT_EQ(router.stats[e], counts[e]);
    EXPECT_NEAR(router.stats[5 + e], probabilities[e], 1e-12);
  }
}

TEST(Router, DeadRowsGoNowhere) {
  RoutedTokens<float> router{4, 2};
  router.forward();
  router.backward(true);
  for (int64_t t = kLive; t < kRouted; ++t) {
    for (int64_t slot = 0; slot < 2; ++slot) {
      EXPECT_EQ(router.chosen[t * 2 + slot], -1);
      EXPECT_EQ(router.weights[t * 2 + slot], 0);
    }
    for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(router.dlogits[t * 4 + e], 0);
  }
}

TEST(Router, TiesGoToTheLowerIndex) {
  RoutedTokens<float> router{4, 2};
  router.logits = Buffer<float>({kRouted, 4}, 1.5f);
  router.forward();
  EXPECT_EQ(router.chosen[0], 0);
  EXPECT_EQ(router.chosen[1], 1);
  EXPECT_EQ(router.weights[0], 0.5f);
}

TEST(Router, LargeLogitsDoNotOverflow) {
  RoutedTokens<float> router{4, 2};
  for (int64_t i = 0; i < router.logits.size(); ++i) router.logits[i] *= 1e4f;
  router.forward();
  for (int64_t i = 0; i < kLive * 2; ++i) EXPECT_TRUE(std::isfinite(router.weights[i]));
}

TEST(Router, BackwardMatchesDifferences) {
  for (const auto& [experts, k] : std::vector<std::pair<int64_t, int64_t>>{{5, 1}, {5, 2}, {5, 5}, {1, 1}})
    for (const bool with_aux : {false, true}) {
      RoutedTokens<double> oracle{experts, k};
      oracle.forward();
      oracle.backward(with_aux);
      expect_gradient(oracle.logits, oracle.dlogits, [&] { return oracle.loss(with_aux); });
      RoutedTokens<float> product{experts, k};
      product.forward();
      product.backward(with_aux);
      if (experts > 1 && (k > 1 || with_aux)) expect_close(product.dlogits, oracle.dlogits, 32);
    }
}

TEST(Router, TopOneHasNoGradient) {
  RoutedTokens<float> router{5, 1};
  router.forward();
  router.backward(false);
  for (int64_t i = 0; i < router.dlogits.size(); ++i) EXPECT_EQ(router.dlogits[i], 0);
}

TEST(Router, ForcedExpertsKeepTheirSlots) {
  RoutedTokens<double> router{5, 2};
  for (int64_t t = 0; t < kRouted; ++t)
    for (int64_t slot = 0; slot < 2; ++slot)
      router.chosen[2 * t + slot] = t < kLive ? static_cast<int32_t>((t + 3 * slot) % 5) : -1;
  const Buffer<int32_t> given = router.chosen;
  router.logits[0 * 5 + 3] = 1e4;  // the second slot of token 0 far above its first
  router.forward(true);
  for (int64_t i = 0; i < given.size(); ++i) EXPECT_EQ(router.chosen[i], given[i]);
  EXPECT_EQ(router.weights[0], 0);
  EXPECT_EQ(router.weights[1], 1);
  for (int64_t t = 1; t < kLive; ++t) {
    const double* logits = &router.logits[t * 5];
    const double ratio = std::exp(logits[given[2 * t]] - logits[given[2 * t + 1]]);
    EXPECT_NEAR(router.weights[2 * t], ratio / (1 + ratio), 1e-14);
  }
  for (int64_t e = 0; e < 5; ++e) EXPECT_EQ(router.stats[e], 2 * kLive / 5);
  EXPECT_EQ(router.weights[2 * kLive], 0);
}

constexpr int64_t kHidden = 12, kRouterExperts = 5;

template <class S>
struct Projection {
  TestCtx ctx;
  Buffer<S> x = Buffer<S>::random({kRouted, kHidden}, "x"),
            weight = Buffer<S>::random({kRouterExperts, kHidden}, "weight");
  Buffer<S> logits{{kRouted, kRouterExperts}, S(9)}, dlogits = Buffer<S>::random({kRouted, kRouterExperts}, "dlogits");
  Buffer<S> dx{{kRouted, kHidden}}, dweight{{kRouterExperts, kHidden}, S(9)};

  void forward() { router_logits(ctx, x, weight, logits); }
  void backward(bool accumulate = false) {
    router_logits_backward(
        ctx, {.x = x, .weight = weight, .dlogits = dlogits, .dx = dx, .dweight = dweight, .accumulate = accumulate});
  }
};

TEST(RouterLogits, AreProductsOfRows) {
  Projection<double> oracle;
  oracle.forward();
  for (int64_t t = 0; t < kRouted; ++t)
    for (int64_t e = 0; e < kRouterExperts; ++e) {
      double sum = 0;
      for (int64_t i = 0; i < kHidden; ++i) sum += oracle.x[t * kHidden + i] * oracle.weight[e * kHidden + i];
      EXPECT_NEAR(oracle.logits[t * kRouterExperts + e], sum, 1e-13);
    }
  Projection<float> product;
  product.forward();
  expect_close(product.logits, oracle.logits, kHidden);
}

TEST(RouterLogits, BackwardMatchesDifferences) {
  Projection<double> oracle;
  oracle.backward();
  const auto loss = [&] {
    oracle.forward();
    return dot(oracle.logits, oracle.dlogits);
  };
  expect_gradient(oracle.x, oracle.dx, loss);
  expect_gradient(oracle.weight, oracle.dweight, loss);
  Projection<float> product;
  product.backward();
  expect_close(product.dx, oracle.dx, kRouterExperts);
  expect_close(product.dweight, oracle.dweight, kRouted);
}

TEST(RouterLogits, GradientsAdd) {
  Projection<float> once, twice;
  once.backward();
  twice.backward();
  twice.backward(true);
  for (int64_t i = 0; i < once.dx.size(); ++i) EXPECT_FLOAT_EQ(twice.dx[i], 2 * once.dx[i]);
  for (int64_t i = 0; i < once.dweight.size(); ++i) EXPECT_FLOAT_EQ(twice.dweight[i], 2 * once.dweight[i]);
}

TEST(RouterLogits, AFrozenWeightGetsNoGradient) {
  Projection<float> all, frozen;
  all.backward();
  router_logits_backward(frozen.ctx,
                         {.x = frozen.x, .weight = frozen.weight, .dlogits = frozen.dlogits, .dx = frozen.dx});
  for (int64_t i = 0; i < all.dx.size(); ++i) EXPECT_EQ(frozen.dx[i], all.dx[i]);
}

}  // namespace
}  // namespace mixtune
