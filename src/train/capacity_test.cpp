// The capacity of experts in the model: against Megatron-Core's own drops, against a slow layer of our own, and what
// must not change anything.
#include "kernels/moe/capacity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "base/json_value.h"
#include "base/test_paths.h"
#include "kernels/moe/router.h"
#include "kernels/testing.h"
#include "train/testing.h"

namespace mixtune {
namespace {

using Json = nlohmann::json;

TEST(CapacityLimit, IsMegatronCores) {
  const auto most = [](double factor, int64_t tokens, int64_t k, int64_t experts) {
    return Capacity{.factor = factor}.limit(tokens, k, experts).most;
  };
  EXPECT_EQ(most(1, 1000, 2, 8), 250);
  EXPECT_EQ(most(1.25, 1000, 2, 8), 313);
  EXPECT_EQ(most(1e-6, 1000, 2, 8), 1);
  EXPECT_EQ(most(1.1, 100, 1, 11), 11);  // 100 / 11 * 1.1 is 10.000000000000002 in double
  for (const double factor : {4.0, 1e6}) EXPECT_FALSE(Capacity{.factor = factor}.limit(1000, 2, 8).is_set());
  EXPECT_FALSE(Capacity().limit(1000, 2, 8).is_set());
  const RowLimit padded = Capacity{.factor = 0.5, .padded_tokens = 4096}.limit(10, 2, 8);
  EXPECT_TRUE(padded.padded);
  EXPECT_EQ(padded.most, 512);
  EXPECT_EQ((Capacity{.factor = 9, .padded_tokens = 4096}.limit(10, 2, 8).most), 4096);
}

// tests/fixtures/capacity.json, by scripts/make_capacity_fixtures.py; its softmax is in fp32.
TEST(MegatronCapacity, DropsTheSameAndHasTheSameGradient) {
  std::ifstream file(source_path("tests/fixtures/capacity.json"));
  const Json drops = Json::parse(file).at("drops");
  ASSERT_EQ(drops.size(), 12u);
  for (const Json& json : drops) {
    const int64_t experts = json.at("experts"), k = json.at("k");
    const int64_t tokens = static_cast<int64_t>(json.at("logits").size()) / experts;
    const auto policy = json.at("policy") == "probs" ? TokenDropPolicy::kProbs : TokenDropPolicy::kPosition;
    const Capacity capacity = {.factor = json.at("factor").get<double>(), .policy = policy};
    const RowLimit limit = capacity.limit(tokens, k, experts);
    const int64_t most = std::min(limit.most, tokens);
    EXPECT_EQ(most, json.at("capacity").get<int64_t>());
    TestCtx ctx;
    Buffer<double> logits({tokens, experts}), weights({tokens, k}), stats({2, experts}), dweights({tokens, k});
    Buffer<double> dlogits({tokens, experts});
    Buffer<int32_t> chosen({tokens, k}), sent({tokens, k});
    for (int64_t i = 0; i < logits.size(); ++i) logits[i] = json.at("logits").at(i);
    router_forward(ctx, {logits, tokens, chosen, weights, stats});
    drop_pairs(ctx, {.experts = chosen,
                     .weights = weights,
                     .all_experts = experts,
                     .most = most,
                     .policy = policy,
                     .sent = sent,
                     .dropped = {}});
    std::vector<int> kept(static_cast<size_t>(logits.size()));
    for (int64_t i = 0; i < tokens * k; ++i) {
      const int64_t at = i / k * experts + chosen[i];
      kept[static_cast<size_t>(at)] = sent[i] >= 0;
      if (sent[i] < 0) continue;
      EXPECT_NEAR(weights[i], json.at("probabilities").at(at).get<double>(), 1e-6);
      dweights[i] = json.at("coefficients").at(at);
    }
    EXPECT_EQ(kept, json.at("kept").get<std::vector<int>>());
    router_backward(ctx, {.logits = logits,
                          .experts = chosen,
                          .weights = weights,
                          .dweights = dweights,
                          .prob_grad = {},
                          .live = tokens,
                          .dlogits = dlogits});
    for (int64_t i = 0; i < dlogits.size(); ++i) EXPECT_NEAR(dlogits[i], json.at("gradient").at(i).get<double>(), 1e-6);
  }
}

// What a run of one micro-batch makes: h after all layers, the losses, every gradient.
struct Ran {
  std::vector<double> numbers, dropped;
};

MixtralConfig many_choices() {
  MixtralConfig config = testing_config();
  config.num_local_experts = 5;
  return config;
}

template <class S>
Ran ran(const Capacity& capacity) {
  const DType dtype = std::is_same_v<S, double> ? DType::kF64 : DType::kF32;
  TestModel test(many_choices(), InstanceOptions{.types = StateTypes::all(dtype), .capacity = capacity});
  const TestData data(test.model().config().vocab_size, {9, 1, 23, 70});
  Ran result = {.numbers = {}, .dropped = {0, 0}};
  Saved saved = test.model().make_saved();
  saved.dropped = host_tensor(result.dropped.data(), {2});
  test.state().gradients().begin_step();
  RouterLosses losses(RouterLossType::kSwitch, 0.1);
  losses[RouterLossType::kZ] = 0.01;
  const MicroBatchLoss loss =
      run_micro_batch(test.ctx(), test.model(), data.batch(), saved, {.token_scale = 0.03, .router = losses});
  result.numbers = {loss.token_sum, loss.router};
  for (int p = 0; p < test.state().size(); ++p) {
    const Tensor gradient = test.state().gradients().finished(test.ctx(), p);
    for (int64_t i = 0; i < gradient.elements(); ++i) result.numbers.push_back(gradient.as<S>()[i]);
  }
  return result;
}

double difference(const Ran& a, const Ran& b) {
  double error = 0, squares = 0;
  for (size_t i = 0; i < a.numbers.size(); ++i) {
    error += std::pow(a.numbers[i] - b.numbers[i], 2);
    squares += std::pow(b.numbers[i], 2);
  }
  return std::sqrt(error / squares);
}

TEST(CapacityOfAModel, AmpleChangesNoBit) {
  const Ran all = ran<float>({}), ample = ran<float>({.factor = 5});
  EXPECT_EQ(ample.numbers, all.numbers);
  EXPECT_EQ(ample.dropped, (std::vector<double>{0, 0}));
  // As many rows as an expert may get, so that the drops run and find nothing.
  const Ran nearly = ran<float>({.factor = 2.4});
  EXPECT_EQ(nearly.numbers, all.numbers);
  EXPECT_GT(difference(ran<float>({.factor = 0.5}), all), 1e-3);
}

TEST(CapacityOfAModel, PaddingChangesNothing) {
  for (const auto policy : {TokenDropPolicy::kProbs, TokenDropPolicy::kPosition}) {
    Capacity capacity = {.factor = 0.6, .policy = policy};
    const Ran plain = ran<double>(capacity);
    capacity.padded_tokens = 9 + 1 + 23 + 70;
    const Ran padded = ran<double>(capacity);
    EXPECT_GT(plain.dropped[0], 0);
    EXPECT_EQ(padded.dropped, plain.dropped);
    EXPECT_LE(difference(padded, plain), 1e-14);  // 0 is added, in another order
  }
}

// An expert block of one layer, pair by pair, from the weights and from what attention gave: no dispatch, no rows.
class SlowBlock {
 public:
  SlowBlock(TestModel& test, const LayerSaved& saved) : test_(test), config_(test.model().config()), saved_(saved) {}

  // [live, H], and how many pairs are dropped. policy: as the documents have it.
  std::vector<double> output(int64_t live, int64_t most, TokenDropPolicy policy, int64_t& dropped) const {
    const int64_t h = config_.hidden_size, k = config_.num_experts_per_tok, experts = config_.num_local_experts;
    std::vector<double> y(saved_.middle.as<double>(), saved_.middle.as<double>() + live * h);
    struct Pair {
      int64_t token, expert;
      double weight;
    };
    std::vector<Pair> pairs;
    for (int64_t t = 0; t < live; ++t) {
      const std::vector<double> x = normed(t);
      std::vector<double> logits;
      for (int64_t e = 0; e < experts; ++e) logits.push_back(product(weight(layer().router) + e * h, x));
      std::vector<int64_t> order(static_cast<size_t>(experts));
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, std::greater(), [&](int64_t e) { return logits[static_cast<size_t>(e)]; });
      double all = 0;
      for (int64_t i = 0; i < k; ++i) all += std::exp(logits[static_cast<size_t>(order[static_cast<size_t>(i)])]);
      for (int64_t i = 0; i < k; ++i) {
        const int64_t e = order[static_cast<size_t>(i)];
        pairs.push_back({t, e, std::exp(logits[static_cast<size_t>(e)]) / all});
      }
    }
    if (policy == TokenDropPolicy::kProbs)
      std::ranges::stable_sort(pairs, [](const Pair& a, const Pair& b) { return a.weight > b.weight; });
    std::vector<int64_t> taken(static_cast<size_t>(experts));
    dropped = 0;
    for (const Pair& pair : pairs) {
      if (taken[static_cast<size_t>(pair.expert)]++ >= most) {
        ++dropped;
        continue;
      }
      const std::vector<double> out = expert(pair.expert, normed(pair.token));
      for (int64_t i = 0; i < h; ++i)
        y[static_cast<size_t>(pair.token * h + i)] += pair.weight * out[static_cast<size_t>(i)];
    }
    return y;
  }

 private:
  const LayerParams& layer() const { return test_.model().params().layers[0]; }
  const double* weight(int param) const { return test_.state().weight(param).as<double>(); }
  static double product(const double* row, const std::vector<double>& x) {
    return std::inner_product(x.begin(), x.end(), row, 0.0);
  }
  std::vector<double> normed(int64_t t) const {
    const double* x = saved_.middle.as<double>() + t * config_.hidden_size;
    double squares = 0;
    for (int64_t i = 0; i < config_.hidden_size; ++i) squares += x[i] * x[i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(config_.hidden_size) + config_.rms_norm_eps);
    std::vector<double> y;
    for (int64_t i = 0; i < config_.hidden_size; ++i) y.push_back(x[i] * scale * weight(layer().post_norm)[i]);
    return y;
  }
  std::vector<double> expert(int64_t e, const std::vector<double>& x) const {
    const int64_t h = config_.hidden_size, f = config_.intermediate_size;
    const double *gate = weight(layer().gate_up) + e * 2 * f * h, *down = weight(layer().down) + e * h * f;
    std::vector<double> act, y;
    for (int64_t i = 0; i < f; ++i) {
      const double g = product(gate + i * h, x);
      act.push_back(g / (1 + std::exp(-g)) * product(gate + (f + i) * h, x));
    }
    for (int64_t i = 0; i < h; ++i) y.push_back(product(down + i * f, act));
    return y;
  }

  TestModel& test_;
  const MixtralConfig& config_;
  const LayerSaved& saved_;
};

TEST(CapacityOfAModel, MatchesASlowLayer) {
  MixtralConfig config = many_choices();
  config.num_hidden_layers = 1;
  constexpr int64_t kLive = 103;
  for (const auto policy : {TokenDropPolicy::kProbs, TokenDropPolicy::kPosition}) {
    const Capacity capacity = {.factor = 0.7, .policy = policy};
    TestModel test(config, InstanceOptions{.types = StateTypes::all(DType::kF64), .capacity = capacity});
    const TestData data(config.vocab_size, {9, 1, 23, 70});
    Saved saved = test.model().make_saved();
    std::vector<double> counted(2);
    saved.dropped = host_tensor(counted.data(), {2});
    const ForwardPass pass = forward_pass(test.ctx(), test.model(), data.batch(), saved, true);
    const int64_t most = capacity.limit(kLive, 2, 5).most;
    EXPECT_EQ(most, 29);
    int64_t dropped = 0;
    const std::vector<double> y = SlowBlock(test, saved.layers[0]).output(kLive, most, policy, dropped);
    EXPECT_GT(dropped, 0);
    EXPECT_EQ(counted[0], dropped);
    for (int64_t i = 0; i < kLive * config.hidden_size; ++i)
      ASSERT_NEAR(pass.h.as<double>()[i], y[static_cast<size_t>(i)], 1e-11);
  }
}

TEST(CapacityOfAModel, EvaluationDropsNothing) {
  const auto evaluated = [](const Capacity& capacity) {
    TestModel test(many_choices(), InstanceOptions{.types = StateTypes::all(DType::kF32), .capacity = capacity});
    const TestData data(test.model().config().vocab_size, {9, 1, 23, 70});
    Saved saved = test.model().make_saved();
    std::vector<double> dropped(2), loss(1);
    saved.dropped = host_tensor(dropped.data(), {2});
    forward_loss(test.ctx(), test.model(), data.batch(), saved, host_tensor(loss.data(), {1}));
    EXPECT_EQ(dropped, (std::vector<double>{0, 0}));
    return loss[0];
  };
  EXPECT_EQ(evaluated({.factor = 0.1}), evaluated({}));
}

}  // namespace
}  // namespace mixtune
