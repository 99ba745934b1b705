// The weights and probabilities of each Scoring, against formulas written out in float64 and differences.
#include <cmath>
#include <vector>

#include "kernels/moe/router.h"
#include "kernels/moe/router_own_loss.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kScored = 20, kScoredLive = 17;
constexpr RouterScores kAllScores[] = {{Scoring::kSoftmax, 2.5},
                                       {Scoring::kPreSoftmax, 1},
                                       {Scoring::kPreSoftmax, 0.5},
                                       {Scoring::kSigmoid, 1},
                                       {Scoring::kSigmoid, 2.5}};

template <class S>
struct Scored {
  RouterScores scores;
  int64_t experts, k;
  TestCtx ctx;
  Buffer<S> logits = Buffer<S>::random({kScored, experts}, "logits", 2), weights{{kScored, k}, S(9)};
  Buffer<S> dweights = Buffer<S>::random({kScored, k}, "dweights"), dlogits{{kScored, experts}, S(9)};
  Buffer<int32_t> chosen{{kScored, k}, 9};
  Buffer<double> stats{{2, experts}}, prob_grad = Buffer<double>::random({experts}, "prob_grad");

  void forward() {
    router_forward(ctx, {.logits = logits,
                         .live = kScoredLive,
                         .experts = chosen,
                         .weights = weights,
                         .stats = stats,
                         .scores = scores});
  }
  void backward(bool with_aux) {
    router_backward(ctx, {.logits = logits,
                          .experts = chosen,
                          .weights = weights,
                          .dweights = dweights,
                          .prob_grad = with_aux ? prob_grad.tensor() : Tensor{},
                          .live = kScoredLive,
                          .dlogits = dlogits,
                          .scores = scores});
  }
  // The function whose gradient is tested: of the live weights, and the statistics of probabilities.
  double loss(bool with_aux) {
    forward();
    double sum = 0;
    for (int64_t i = 0; i < kScoredLive * k; ++i) sum += weights[i] * dweights[i];
    for (int64_t e = 0; with_aux && e < experts; ++e) sum += prob_grad[e] * stats[experts + e];
    return sum;
  }
  // A logit's exponential or sigmoid.
  double score(int64_t t, int64_t e) const {
    const double x = logits[t * experts + e];
    return scores.scoring == Scoring::kSigmoid ? std::exp(x) / (std::exp(x) + 1) : std::exp(x);
  }
  double sum_of_all(int64_t t) const {
    double sum = 0;
    for (int64_t e = 0; e < experts; ++e) sum += score(t, e);
    return sum;
  }
  double weight(int64_t t, int64_t slot) const {
    const double own = score(t, chosen[t * k + slot]);
    double of_chosen = 0;
    for (int64_t s = 0; s < k; ++s) of_chosen += score(t, chosen[t * k + s]);
    if (scores.scoring == Scoring::kPreSoftmax) return scores.scaling * own / sum_of_all(t);
    return scores.scaling * (scores.scoring == Scoring::kSigmoid && k == 1 ? own : own / of_chosen);
  }
};

const std::vector<std::pair<int64_t, int64_t>> kShapes = {{5, 1}, {5, 2}, {5, 5}, {1, 1}};

TEST(RouterScores, WeightsAndProbabilitiesAreTheirFormulas) {
  for (const RouterScores& scores : kAllScores)
    for (const auto& [experts, k] : kShapes) {
      Scored<double> oracle{scores, experts, k};
      oracle.forward();
      std::vector<double> probabilities(experts, 0);
      for (int64_t t = 0; t < kScoredLive; ++t) {
        for (int64_t slot = 0; slot < k; ++slot)
          EXPECT_NEAR(oracle.weights[t * k + slot], oracle.weight(t, slot), 1e-14);
        for (int64_t e = 0; e < experts; ++e) probabilities[e] += oracle.score(t, e) / oracle.sum_of_all(t);
      }
      for (int64_t e = 0; e < experts; ++e) EXPECT_NEAR(oracle.stats[experts + e], probabilities[e], 1e-12);
      for (int64_t i = kScoredLive * k; i < kScored * k; ++i) EXPECT_EQ(oracle.weights[i], 0);
      Scored<float> product{scores, experts, k};
      product.forward();
      expect_close(product.weights, oracle.weights, 16);
    }
}

TEST(RouterScores, ChooseTheSameExperts) {
  Scored<double> softmax{{}, 5, 2};
  softmax.forward();
  for (const RouterScores& scores : kAllScores) {
    Scored<double> other{scores, 5, 2};
    other.forward();
    for (int64_t i = 0; i < other.chosen.size(); ++i) EXPECT_EQ(other.chosen[i], softmax.chosen[i]);
  }
}

TEST(RouterScores, BackwardMatchesDifferences) {
  for (const RouterScores& scores : kAllScores)
    for (const auto& [experts, k] : kShapes)
      for (const bool with_aux : {false, true}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(scores.scoring) << " E" << experts << " k" << k);
        Scored<double> oracle{scores, experts, k};
        oracle.forward();
        oracle.backward(with_aux);
        expect_gradient(oracle.logits, oracle.dlogits, [&] { return oracle.loss(with_aux); });
        Scored<float> product{scores, experts, k};
        product.forward();
        product.backward(with_aux);
        if (experts > 1 && (k > 1 || with_aux || scores.scoring != Scoring::kSoftmax))
          expect_close(product.dlogits, oracle.dlogits, 32);
        for (int64_t i = kScoredLive * experts; i < product.dlogits.size(); ++i) EXPECT_EQ(product.dlogits[i], 0);
      }
}

TEST(RouterScores, TopOneHasAGradient) {
  for (const Scoring scoring : {Scoring::kPreSoftmax, Scoring::kSigmoid}) {
    Scored<float> scored{{scoring, 1}, 5, 1};
    scored.forward();
    scored.backward(false);
    for (int64_t t = 0; t < kScoredLive; ++t) EXPECT_NE(scored.dlogits[t * 5 + scored.chosen[t]], 0);
  }
}

// Sigmoids that round to 1 still leave the largest logits in their order, and those that are 0 divide by no 0.
TEST(RouterScores, FarLogitsAreFinite) {
  for (const RouterScores& scores : kAllScores)
    for (const float all : {1e4f, -1e4f}) {
      Scored<float> scored{scores, 4, 2};
      for (int64_t i = 0; i < scored.logits.size(); ++i) scored.logits[i] = all + static_cast<float>(i % 4);
      scored.forward();
      scored.backward(true);
      for (int64_t t = 0; t < kScoredLive; ++t) {
        EXPECT_EQ(scored.chosen[2 * t], 3);
        EXPECT_EQ(scored.chosen[2 * t + 1], 2);
      }
      for (int64_t i = 0; i < scored.weights.size(); ++i) EXPECT_TRUE(std::isfinite(scored.weights[i]));
      for (int64_t i = 0; i < scored.dlogits.size(); ++i) EXPECT_TRUE(std::isfinite(scored.dlogits[i]));
    }
}

// One document of all live tokens.
TEST(RouterScores, SequenceLossOfSigmoidsMatchesDifferences) {
  Scored<double> scored{{Scoring::kSigmoid, 1}, 5, 2};
  scored.forward();
  scored.dlogits = Buffer<double>({kScored, 5});
  Buffer<int32_t> offsets({2}, 0);
  offsets[1] = kScoredLive;
  constexpr double kScale = 0.7;
  const auto loss = [&](const Tensor& dlogits) {
    Buffer<double> total({1});
    router_sequence_loss(scored.ctx, {.logits = scored.logits,
                                      .experts = scored.chosen,
                                      .doc_offsets = offsets,
                                      .live = kScoredLive,
                                      .scale = kScale,
                                      .dlogits = dlogits,
                                      .loss = total,
                                      .scoring = Scoring::kSigmoid});
    return kScale * total[0];
  };
  double expected = 0;
  for (int64_t e = 0; e < 5; ++e)
    expected += kScale * 5 / (2.0 * kScoredLive * kScoredLive) * scored.stats[e] * scored.stats[5 + e];
  EXPECT_NEAR(loss(scored.dlogits), expected, 1e-13);
  Buffer<double> unused({kScored, 5});
  expect_gradient(scored.logits, scored.dlogits, [&] { return loss(unused); });
}

}  // namespace
}  // namespace mixtune
