// The router's losses, each against its formula written out in float64, and its gradient against differences.
#include "kernels/moe/router_loss.h"

#include <vector>

#include "kernels/moe/router.h"
#include "kernels/moe/router_own_loss.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr RouterLossType kOfCounts[] = {RouterLossType::kHuggingface, RouterLossType::kSwitch, RouterLossType::kGlobal};

// Perfectly balanced top-2 routing of 8 tokens over 4 experts, in 2 layers.
struct Balance {
  TestCtx ctx;
  static constexpr int64_t kEarlier = 12;  // tokens of earlier accumulation steps, as balanced
  Buffer<double> stats{{2, 2, 4}}, prob_grad{{2, 4}, 9}, total{{1}}, earlier{{2, 4}, 6}, counts{{2, 4}};
  bool accumulate = false;

  Balance() {
    for (int64_t i = 0; i < stats.size(); ++i) stats[i] = i / 4 % 2 == 0 ? 4 : 2;
  }
  double loss(RouterLossType type, double scale = 1) {
    const double before = total[0];
    counts = earlier;
    router_loss(ctx, {.type = type,
                      .stats = stats,
                      .tokens = 8,
                      .scale = scale,
                      .prob_grad = prob_grad,
                      .loss = total,
                      .accumulate = accumulate,
                      .experts_per_token = 2,
                      .counts = counts,
                      .counted_tokens = 8 + kEarlier});
    return total[0] - before;
  }
};

TEST(RouterLoss, HuggingfaceIsKWhenBalanced) {
  Balance balance;
  EXPECT_DOUBLE_EQ(balance.loss(RouterLossType::kHuggingface), 2);
  balance.stats[0] += 4, balance.stats[1] -= 4;  // expert 1 of layer 0 starves
  balance.stats[4] += 1, balance.stats[5] -= 1;
  EXPECT_GT(balance.loss(RouterLossType::kHuggingface), 2);
}

TEST(RouterLoss, AddsItsValue) {
  Balance balance;
  balance.total[0] = 5;
  balance.loss(RouterLossType::kHuggingface);
  EXPECT_DOUBLE_EQ(balance.total[0], 7);
}

TEST(RouterLoss, MegatronsIsOneInEachLayerWhenBalanced) {
  for (const RouterLossType type : {RouterLossType::kSwitch, RouterLossType::kGlobal}) {
    Balance balance;
    EXPECT_DOUBLE_EQ(balance.loss(type), 2);  // layers
    balance.stats[0] += 4, balance.stats[1] -= 4;
    balance.stats[4] += 1, balance.stats[5] -= 1;
    EXPECT_GT(balance.loss(type), 2);
  }
}

TEST(RouterLoss, GlobalCountsEarlierTokensToo) {
  Balance balance;
  for (int64_t e = 0; e < 4; ++e) balance.earlier[e] = e == 0 ? 24 : 0;  // all of them, twice
  for (int64_t e = 0; e < 4; ++e) balance.stats[4 + e] = e == 0 ? 5 : 1;
  // Layer 0: E / k (28 / 20 * 5 / 8 + 3 * 4 / 20 * 1 / 8); layer 1 is balanced.
  EXPECT_DOUBLE_EQ(balance.loss(RouterLossType::kGlobal), 2 * (28 / 20. * 5 / 8 + 3 * 4 / 20. / 8) + 1);
  EXPECT_EQ(balance.counts[0], 28);
  EXPECT_EQ(balance.counts[1], 4);
}

TEST(RouterLoss, GradientMatchesDifferences) {
  for (const RouterLossType type : kOfCounts) {
    Balance balance;
    const Buffer<double> noise = Buffer<double>::random(Shape{2, 2, 4}, "noise", 0.3);
    for (int64_t i = 0; i < balance.stats.size(); ++i) balance.stats[i] += noise[i];
    constexpr double kScale = 0.5, kStep = 1e-3;  // the losses are linear in the probabilities
    const double start = balance.loss(type, kScale);
    const Buffer<double> gradient = balance.prob_grad;
    for (int64_t l = 0; l < 2; ++l)
      for (int64_t e = 0; e < 4; ++e) {
        double& probability = balance.stats[(2 * l + 1) * 4 + e];
        probability += kStep;
        EXPECT_NEAR(kScale * (balance.loss(type, kScale) - start) / kStep, gradient[l * 4 + e], 1e-10);
        probability -= kStep;
      }
  }
}

TEST(RouterLoss, GradientsAdd) {
  Balance balance;
  balance.loss(RouterLossType::kSwitch, 0.5);
  const Buffer<double> once = balance.prob_grad;
  balance.accumulate = true;
  balance.loss(RouterLossType::kGlobal, 0.25);
  for (int64_t i = 0; i < once.size(); ++i) EXPECT_DOUBLE_EQ(balance.prob_grad[i], 1.5 * once[i]);
}

constexpr int64_t kLossRows = 30, kLossLive = 25, kLossExperts = 5, kLossPerToken = 2, kLossDocuments = 4;

template <class S>
struct OwnLosses {
  TestCtx ctx;
  Buffer<S> logits = Buffer<S>::random({kLossRows, kLossExperts}, "logits", 2), dlogits{{kLossRows, kLossExperts}};
  Buffer<S> weights{{kLossRows, kLossPerToken}};
  Buffer<int32_t> chosen{{kLossRows, kLossPerToken}}, offsets{{kLossDocuments + 1}};
  Buffer<double> stats{{2, kLossExperts}}, total{{1}};
  double scale = 0.3;

  OwnLosses() {
    for (const auto& [d, begin] : std::vector<std::pair<int64_t, int32_t>>{{1, 1}, {2, 8}, {3, 9}, {4, kLossLive}})
      offsets[d] = begin;
    router_forward(ctx, {.logits = logits, .live = kLossLive, .experts = chosen, .weights = weights, .stats = stats});
  }
  double z() {
    const double before = total[0];
    router_z_loss(ctx, {.logits = logits, .live = kLossLive, .scale = scale, .dlogits = dlogits, .loss = total});
    return total[0] - before;
  }
  double sequence() {
    const double before = total[0];
    router_sequence_loss(ctx, {.logits = logits,
                               .experts = chosen,
                               .doc_offsets = offsets,
                               .live = kLossLive,
                               .scale = scale,
                               .dlogits = dlogits,
                               .loss = total});
    return total[0] - before;
  }
  double probability(int64_t t, int64_t e) const {
    double sum = 0;
    for (int64_t i = 0; i < kLossExperts; ++i) sum += std::exp(double{logits[t * kLossExperts + i]});
    return std::exp(double{logits[t * kLossExperts + e]}) / sum;
  }
};

TEST(RouterZLoss, IsTheSumOfSquares) {
  OwnLosses<double> losses;
  losses.total[0] = 5;
  double expected = 0;
  for (int64_t t = 0; t < kLossLive; ++t) {
    double sum = 0;
    for (int64_t e = 0; e < kLossExperts; ++e) sum += std::exp(losses.logits[t * kLossExperts + e]);
    expected += std::log(sum) * std::log(sum);
  }
  EXPECT_NEAR(losses.z(), expected, 1e-12);
  OwnLosses<float> product;
  EXPECT_NEAR(product.z(), expected, 1e-6 * expected);
}

// The sum over experts of the counts, and of the probabilities, of each document by itself.
TEST(RouterSequenceLoss, IsTheSumOverDocuments) {
  OwnLosses<double> losses;
  double expected = 0;
  for (int64_t d = 0; d < kLossDocuments; ++d) {
    const int64_t begin = losses.offsets[d], end = losses.offsets[d + 1];
    for (int64_t e = 0; e < kLossExperts; ++e) {
      double n = 0, p = 0;
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t slot = 0; slot < kLossPerToken; ++slot) n += losses.chosen[t * kLossPerToken + slot] == e;
        p += losses.probability(t, e);
      }
      expected += kLossExperts / (kLossPerToken * std::pow(end - begin, 2)) * n * p;
    }
  }
  EXPECT_NEAR(losses.sequence(), expected, 1e-12);
  OwnLosses<float> product;
  EXPECT_NEAR(product.sequence(), expected, 1e-6 * expected);
}

// A document whose tokens take each expert as often, of even probabilities.
TEST(RouterSequenceLoss, IsOneForABalancedDocument) {
  OwnLosses<double> losses;
  losses.logits = Buffer<double>({kLossRows, kLossExperts}, 3);
  losses.offsets = Buffer<int32_t>({2}, 0);
  losses.offsets[1] = kLossLive;
  for (int64_t i = 0; i < kLossLive * kLossPerToken; ++i) losses.chosen[i] = static_cast<int32_t>(i % kLossExperts);
  EXPECT_NEAR(losses.sequence(), 1, 1e-14);
}

template <class S>
using OwnLoss = double (OwnLosses<S>::*)();

TEST(RouterOwnLosses, GradientsMatchDifferences) {
  const std::pair<OwnLoss<double>, OwnLoss<float>> all[] = {
      {&OwnLosses<double>::z, &OwnLosses<float>::z}, {&OwnLosses<double>::sequence, &OwnLosses<float>::sequence}};
  for (const auto& [in_double, in_float] : all) {
    OwnLosses<double> oracle;
    OwnLosses<float> product;
    (oracle.*in_double)();
    const Buffer<double> gradient = oracle.dlogits;
    expect_gradient(oracle.logits, gradient, [&, loss = in_double] { return oracle.scale * (oracle.*loss)(); });
    (product.*in_float)();
    expect_close(product.dlogits, gradient, 32);
    for (int64_t i = kLossLive * kLossExperts; i < gradient.size(); ++i) EXPECT_EQ(gradient[i], 0);  // of dead rows
    oracle.dlogits = gradient;
    (oracle.*in_double)();
    for (int64_t i = 0; i < gradient.size(); ++i) EXPECT_DOUBLE_EQ(oracle.dlogits[i], 2 * gradient[i]);
  }
}

TEST(RouterOwnLosses, OfNoTokenAreNothing) {
  OwnLosses<float> losses;
  Buffer<int32_t> none({1}, 0);
  router_z_loss(losses.ctx, {losses.logits, 0, 1, losses.dlogits, losses.total});
  router_sequence_loss(losses.ctx, {losses.logits, losses.chosen, none, 0, 1, losses.dlogits, losses.total});
  EXPECT_EQ(losses.total[0], 0);
  for (int64_t i = 0; i < losses.dlogits.size(); ++i) EXPECT_EQ(losses.dlogits[i], 0);
}

}  // namespace
}  // namespace mixtune
