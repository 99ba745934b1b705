// The weights and probabilities of each Scoring, against formulas written out in float64 and differences.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/moe/router_own_loss.h"
#include "kernels/moe/router_testing.h"

namespace mixtune {
namespace {

constexpr RouterScores kAllScores[] = {{Scoring::kSoftmax, 2.5},    {Scoring::kPreSoftmax, 1},
                                       {Scoring::kPreSoftmax, 0.5}, {Scoring::kSigmoid, 1},
                                       {Scoring::kSigmoid, 2.5},    {Scoring::kSigmoid, 1, true}};

template <class S>
struct Scored : RoutedTokens<S> {
  using RoutedTokens<S>::logits, RoutedTokens<S>::experts, RoutedTokens<S>::k, RoutedTokens<S>::scores;
  using RoutedTokens<S>::chosen, RoutedTokens<S>::bias;

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
      Scored<double> oracle{{experts, k, scores}};
      oracle.forward();
      std::vector<double> probabilities(experts, 0);
      for (int64_t t = 0; t < kLive; ++t) {
        for (int64_t slot = 0; slot < k; ++slot)
          EXPECT_NEAR(oracle.weights[t * k + slot], oracle.weight(t, slot), 1e-14);
        for (int64_t e = 0; e < experts; ++e) probabilities[e] += oracle.score(t, e) / oracle.sum_of_all(t);
      }
      for (int64_t e = 0; e < experts; ++e) EXPECT_NEAR(oracle.stats[experts + e], probabilities[e], 1e-12);
      for (int64_t i = kLive * k; i < kRouted * k; ++i) EXPECT_EQ(oracle.weights[i], 0);
      Scored<float> product{{experts, k, scores}};
      product.forward();
      expect_close(product.weights, oracle.weights, 16);
    }
}

TEST(RouterScores, ChooseTheSameExperts) {
  Scored<double> softmax{{5, 2}};
  softmax.forward();
  for (const RouterScores& scores : kAllScores) {
    if (scores.expert_bias) continue;
    Scored<double> other{{5, 2, scores}};
    other.forward();
    for (int64_t i = 0; i < other.chosen.size(); ++i) EXPECT_EQ(other.chosen[i], softmax.chosen[i]);
  }
}

TEST(RouterScores, BackwardMatchesDifferences) {
  for (const RouterScores& scores : kAllScores)
    for (const auto& [experts, k] : kShapes)
      for (const bool with_aux : {false, true}) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(scores.scoring) << " E" << experts << " k" << k);
        Scored<double> oracle{{experts, k, scores}};
        oracle.forward();
        oracle.backward(with_aux);
        expect_gradient(oracle.logits, oracle.dlogits, [&] { return oracle.loss(with_aux); });
        Scored<float> product{{experts, k, scores}};
        product.forward();
        product.backward(with_aux);
        if (experts > 1 && (k > 1 || with_aux || scores.scoring != Scoring::kSoftmax))
          expect_close(product.dlogits, oracle.dlogits, 32);
        for (int64_t i = kLive * experts; i < product.dlogits.size(); ++i) EXPECT_EQ(product.dlogits[i], 0);
      }
}

TEST(RouterScores, TopOneHasAGradient) {
  for (const Scoring scoring : {Scoring::kPreSoftmax, Scoring::kSigmoid}) {
    Scored<float> scored{{5, 1, {scoring, 1}}};
    scored.forward();
    scored.backward(false);
    for (int64_t t = 0; t < kLive; ++t) EXPECT_NE(scored.dlogits[t * 5 + scored.chosen[t]], 0);
  }
}

// The reference ranks all experts, where the kernel picks one after the other.
TEST(RouterScores, ABiasChangesTheChoiceAndNotTheWeights) {
  for (const auto& [experts, k] : kShapes) {
    Scored<double> biased{{experts, k, {Scoring::kSigmoid, 2.5, true}}}, plain{{experts, k, {Scoring::kSigmoid, 2.5}}};
    biased.forward();
    plain.forward();
    int64_t others = 0;
    std::vector<double> counts(experts, 0);
    for (int64_t t = 0; t < kLive; ++t) {
      std::vector<int32_t> order(experts);
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, std::greater(), [&](int32_t e) { return biased.score(t, e) + biased.bias[e]; });
      for (int64_t slot = 0; slot < k; ++slot) {
        EXPECT_EQ(biased.chosen[t * k + slot], order[slot]);
        EXPECT_NEAR(biased.weights[t * k + slot], biased.weight(t, slot), 1e-14);
        others += biased.chosen[t * k + slot] != plain.chosen[t * k + slot];
        counts[order[slot]] += 1;
      }
    }
    EXPECT_EQ(others > 0, experts > 1) << "a bias that changes nothing tests nothing";
    for (int64_t e = 0; e < experts; ++e) {
      EXPECT_EQ(biased.stats[e], counts[e]);
      EXPECT_EQ(biased.stats[experts + e], plain.stats[experts + e]);
    }
    for (int64_t i = kLive * k; i < kRouted * k; ++i) EXPECT_EQ(biased.chosen[i], -1);
  }
}

TEST(RouterScores, AlikeBiasesAreNone) {
  Scored<float> biased{{5, 2, {Scoring::kSigmoid, 1, true}}}, plain{{5, 2, {Scoring::kSigmoid, 1}}};
  for (int64_t e = 0; e < 5; ++e) biased.bias[e] = 0;
  biased.forward();
  plain.forward();
  for (int64_t i = 0; i < plain.chosen.size(); ++i) EXPECT_EQ(biased.chosen[i], plain.chosen[i]);
  for (int64_t i = 0; i < plain.weights.size(); ++i) EXPECT_EQ(biased.weights[i], plain.weights[i]);
}

TEST(RouterScores, TiesOfABiasGoToTheLowerIndex) {
  Scored<float> scored{{4, 2, {Scoring::kSigmoid, 1, true}}};
  for (int64_t i = 0; i < scored.logits.size(); ++i) scored.logits[i] = 100;  // of which all sigmoids are 1
  for (int64_t e = 0; e < 4; ++e) scored.bias[e] = e == 0 ? 0.f : 0.5f;
  scored.forward();
  EXPECT_EQ(scored.chosen[0], 1);
  EXPECT_EQ(scored.chosen[1], 2);
}

// Sigmoids that round to 1 still leave the largest logits in their order, and those that are 0 divide by no 0.
TEST(RouterScores, FarLogitsAreFinite) {
  for (const RouterScores& scores : kAllScores)
    for (const float all : {1e4f, -1e4f}) {
      if (scores.expert_bias) continue;  // the sum of a sigmoid that rounds to 1 and a bias has no order of logits
      Scored<float> scored{{4, 2, scores}};
      for (int64_t i = 0; i < scored.logits.size(); ++i) scored.logits[i] = all + static_cast<float>(i % 4);
      scored.forward();
      scored.backward(true);
      for (int64_t t = 0; t < kLive; ++t) {
        EXPECT_EQ(scored.chosen[2 * t], 3);
        EXPECT_EQ(scored.chosen[2 * t + 1], 2);
      }
      for (int64_t i = 0; i < scored.weights.size(); ++i) EXPECT_TRUE(std::isfinite(scored.weights[i]));
      for (int64_t i = 0; i < scored.dlogits.size(); ++i) EXPECT_TRUE(std::isfinite(scored.dlogits[i]));
    }
}

// One document of all live tokens.
TEST(RouterScores, SequenceLossOfSigmoidsMatchesDifferences) {
  Scored<double> scored{{5, 2, {Scoring::kSigmoid, 1}}};
  scored.forward();
  scored.dlogits = Buffer<double>({kRouted, 5});
  Buffer<int32_t> offsets({2}, 0);
  offsets[1] = kLive;
  constexpr double kScale = 0.7;
  const auto loss = [&](const Tensor& dlogits) {
    Buffer<double> total({1});
    router_sequence_loss(scored.ctx, {.logits = scored.logits,
                                      .experts = scored.chosen,
                                      .doc_offsets = offsets,
                                      .live = kLive,
                                      .scale = kScale,
                                      .dlogits = dlogits,
                                      .loss = total,
                                      .scoring = Scoring::kSigmoid});
    return kScale * total[0];
  };
  double expected = 0;
  for (int64_t e = 0; e < 5; ++e)
    expected += kScale * 5 / (2.0 * kLive * kLive) * scored.stats[e] * scored.stats[5 + e];
  EXPECT_NEAR(loss(scored.dlogits), expected, 1e-13);
  Buffer<double> unused({kRouted, 5});
  expect_gradient(scored.logits, scored.dlogits, [&] { return loss(unused); });
}

}  // namespace
}  // namespace mixtune
