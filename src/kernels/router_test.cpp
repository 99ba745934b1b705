#include "kernels/router.h"

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kRows = 30, kLive = 25;

template <class S>
struct Router {
  int64_t experts, k;
  TestCtx ctx;
  Buffer<S> logits = Buffer<S>::random({kRows, experts}, "logits", 2), weights{{kRows, k}, S(9)};
  Buffer<S> dweights = Buffer<S>::random({kRows, k}, "dweights"), dlogits{{kRows, experts}, S(9)};
  Buffer<int32_t> chosen{{kRows, k}, 9};
  Buffer<double> stats{{2, experts}}, prob_grad = Buffer<double>::random({experts}, "prob_grad");

  void forward() {
    router_forward(ctx, {.logits = logits, .live = kLive, .experts = chosen, .weights = weights, .stats = stats});
  }
  void backward(bool with_aux) {
    router_backward(ctx, {.logits = logits,
                          .experts = chosen,
                          .weights = weights,
                          .dweights = dweights,
                          .prob_grad = with_aux ? prob_grad.tensor() : Tensor{},
                          .live = kLive,
                          .dlogits = dlogits});
  }
  // What the gradient is of: the live weights, and the statistics of probabilities.
  double loss(bool with_aux) {
    forward();
    double sum = 0;
    for (int64_t i = 0; i < kLive * k; ++i) sum += weights[i] * dweights[i];
    for (int64_t e = 0; with_aux && e < experts; ++e) sum += prob_grad[e] * stats[experts + e];
    return sum;
  }
};

TEST(Router, TakesTheLargestRenormalisedAndCounts) {
  Router<double> router{5, 3};
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
  Router<float> router{4, 2};
  router.forward();
  router.backward(true);
  for (int64_t t = kLive; t < kRows; ++t) {
    for (int64_t slot = 0; slot < 2; ++slot) {
      EXPECT_EQ(router.chosen[t * 2 + slot], -1);
      EXPECT_EQ(router.weights[t * 2 + slot], 0);
    }
    for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(router.dlogits[t * 4 + e], 0);
  }
}

TEST(Router, TiesGoToTheLowerIndex) {
  Router<float> router{4, 2};
  router.logits = Buffer<float>({kRows, 4}, 1.5f);
  router.forward();
  EXPECT_EQ(router.chosen[0], 0);
  EXPECT_EQ(router.chosen[1], 1);
  EXPECT_EQ(router.weights[0], 0.5f);
}

TEST(Router, LargeLogitsDoNotOverflow) {
  Router<float> router{4, 2};
  for (int64_t i = 0; i < router.logits.size(); ++i) router.logits[i] *= 1e4f;
  router.forward();
  for (int64_t i = 0; i < kLive * 2; ++i) EXPECT_TRUE(std::isfinite(router.weights[i]));
}

TEST(Router, BackwardMatchesDifferences) {
  for (const auto& [experts, k] : std::vector<std::pair<int64_t, int64_t>>{{5, 1}, {5, 2}, {5, 5}, {1, 1}})
    for (const bool with_aux : {false, true}) {
      Router<double> oracle{experts, k};
      oracle.forward();
      oracle.backward(with_aux);
      expect_gradient(oracle.logits, oracle.dlogits, [&] { return oracle.loss(with_aux); });
      Router<float> product{experts, k};
      product.forward();
      product.backward(with_aux);
      if (experts > 1 && (k > 1 || with_aux)) expect_close(product.dlogits, oracle.dlogits, 32);
    }
}

TEST(Router, TopOneHasNoGradient) {
  Router<float> router{5, 1};
  router.forward();
  router.backward(false);
  for (int64_t i = 0; i < router.dlogits.size(); ++i) EXPECT_EQ(router.dlogits[i], 0);
}

}  // namespace
}  // namespace mixtune
