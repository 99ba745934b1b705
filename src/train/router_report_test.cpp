// What a step records of its routers, against the experts and logits of its layers.
#include "train/router_report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <thread>

#include "parallel/gloo_communicator.h"
#include "parallel/testing.h"
#include "train/expert_load.h"
#include "train/step_record.h"
#include "train/testing.h"

namespace mixtune {
namespace {

using namespace std::chrono_literals;

TEST(ExpertImbalance, IsTheMostByTheMean) {
  EXPECT_EQ(expert_imbalance<int32_t>(std::vector{3, 0, 5, 0}), 2.5);
  EXPECT_EQ(expert_imbalance<double>(std::vector{7.0, 7.0, 7.0}), 1);
  EXPECT_TRUE(std::isnan(expert_imbalance<double>(std::vector{0.0, 0.0})));
}

// The records of a step on its own, which outlive it.
struct Told {
  StepRecord record;
  RouterRecord routers;
};

// `batches` of a first step, from the same weights each time.
Told told_of(Instance& model, std::span<const Batch> batches) {
  StepRunner runner(model, {}, 0);
  runner.forward_backward(batches, {.target_weight = 60});
  runner.update({.step = 1, .lr_share = 0, .max_norm = 1});
  const StepRunner::Result result = runner.read();
  Told told = {step_record({}, result), *result.routers};
  told.record.routers = nullptr;
  return told;
}

// Of the layer's logits and experts, as a forward pass leaves them.
RouterRecord expected_of(TestModel& test, const Batch& batch) {
  const Mixtral& model = test.model();
  Saved saved = model.make_saved();
  const Frame frame(test.ctx());
  forward_pass(test.ctx(), model, batch, saved, true);
  const auto experts = static_cast<size_t>(model.config().num_local_experts);
  RouterRecord all{.expert_tokens = std::vector<int64_t>(experts)};
  for (const LayerSaved& layer : saved.layers) {
    std::vector<int64_t> counts(experts);
    double entropy = 0, squares = 0;
    for (int64_t t = 0; t < batch.live_tokens; ++t) {
      double sum = 0;
      for (size_t e = 0; e < experts; ++e) sum += std::exp(double{layer.router_logits.row(t).as<float>()[e]});
      for (size_t e = 0; e < experts; ++e) {
        const double x = layer.router_logits.row(t).as<float>()[e], p = std::exp(x) / sum;
        entropy -= p * std::log(p);
        squares += x * x;
      }
      for (int64_t slot = 0; slot < model.config().num_experts_per_tok; ++slot)
        ++counts[layer.routing.experts.row(t).as<int32_t>()[slot]];
    }
    const auto tokens = static_cast<double>(batch.live_tokens), e = static_cast<double>(experts);
    for (size_t i = 0; i < experts; ++i) all.expert_tokens[i] += counts[i];
    all.layer_imbalance.push_back(expert_imbalance<int64_t>(counts));
    all.layer_share.push_back(static_cast<double>(std::ranges::max(counts)) / tokens);
    all.layer_entropy.push_back(entropy / (tokens * std::log(e)));
    all.layer_logit_scale.push_back(std::sqrt(squares / (tokens * e)));
    all.layer_expert_tokens.push_back(std::move(counts));
  }
  return all;
}

void expect_near(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-6 * expected[i]) << i;
}

void expect_same(const RouterRecord& actual, const RouterRecord& expected) {
  EXPECT_EQ(actual.expert_tokens, expected.expert_tokens);
  EXPECT_EQ(actual.layer_expert_tokens, expected.layer_expert_tokens);
  expect_near(actual.layer_imbalance, expected.layer_imbalance);
  expect_near(actual.layer_share, expected.layer_share);
  expect_near(actual.layer_entropy, expected.layer_entropy);
  expect_near(actual.layer_logit_scale, expected.layer_logit_scale);
}

constexpr Recompute kRecomputes[] = {Recompute::kNone, Recompute::kSelective, Recompute::kFull};

TEST(RouterReport, IsWhatTheRoutersDidHoweverMuchIsComputedAgain) {
  const TestData data(testing_config().vocab_size, {9, 23, 70});
  for (const Recompute recompute : kRecomputes) {
    TestModel model(testing_config(), InstanceOptions{.recompute = recompute});
    const RouterRecord expected = expected_of(model, data.batch());
    const Batch batches[] = {data.batch()};
    const Told told = told_of(model, batches);
    expect_same(told.routers, expected);
    EXPECT_DOUBLE_EQ(told.record.expert_imbalance, std::ranges::max(told.routers.layer_imbalance));
    EXPECT_DOUBLE_EQ(told.record.expert_share, std::ranges::max(told.routers.layer_share));
    EXPECT_DOUBLE_EQ(told.record.router_entropy, (told.routers.layer_entropy[0] + told.routers.layer_entropy[1]) / 2);
    EXPECT_DOUBLE_EQ(told.record.router_logit_scale, std::ranges::max(told.routers.layer_logit_scale));
    EXPECT_GT(told.record.memory_gib, 0);
  }
}

TEST(RouterReport, IsOfAllMicroBatchesOfAStepAndOfThatStepAlone) {
  const TestData first(testing_config().vocab_size, {9, 23}), second(testing_config().vocab_size, {70});
  TestModel model(testing_config(), DType::kF32);
  const RouterRecord a = expected_of(model, first.batch()), b = expected_of(model, second.batch());
  const Batch batches[] = {first.batch(), second.batch()};
  StepRunner runner(model, {.learning_rate = 0}, 0);
  for (const int64_t step : {1, 2}) {
    runner.forward_backward(batches, {.target_weight = 60});
    runner.update({.step = step, .lr_share = 0, .max_norm = 1});
    const RouterRecord& both = *runner.read().routers;
    for (size_t layer = 0; layer < 2; ++layer) {
      for (size_t e = 0; e < 4; ++e)
        EXPECT_EQ(both.layer_expert_tokens[layer][e],
                  a.layer_expert_tokens[layer][e] + b.layer_expert_tokens[layer][e]);
      EXPECT_NEAR(102 * both.layer_entropy[layer], 32 * a.layer_entropy[layer] + 70 * b.layer_entropy[layer], 1e-5);
    }
  }
  runner.forward(batches);
  EXPECT_EQ(runner.read().routers, nullptr);
}

// Rank 0 has the first document, rank 1 the second.
Told told_by_rank(Store& store, int rank, const std::vector<int64_t>& lengths) {
  Ranks ranks = make_ranks(make_gloo_communicator(store, {.rank = rank, .size = 2, .timeout = 10s}),
                           {.world = 2, .rank = rank, .expert_parallel = 2});
  TestModel model(testing_config(), {.types = StateTypes::all(DType::kF32), .ranks = &ranks});
  const TestData data(testing_config().vocab_size, {lengths[rank]});
  Batch batch = data.batch();
  batch.step_tokens = lengths[0] + lengths[1];
  const Batch batches[] = {batch};
  return told_of(model, batches);
}

TEST(RouterReport, OfTwoRanksIsThatOfOneWithTheirTokens) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  const std::vector<int64_t> lengths = {10, 40};
  const TestData first(testing_config().vocab_size, {10}), second(testing_config().vocab_size, {40});
  TestModel model(testing_config(), DType::kF32);
  const Batch batches[] = {first.batch(), second.batch()};
  const Told one = told_of(model, batches);
  MemoryStore store(10s);
  Told ranks[2];
  std::thread other([&] { ranks[1] = told_by_rank(store, 1, lengths); });
  ranks[0] = told_by_rank(store, 0, lengths);
  other.join();
  for (const Told& told : ranks) {
    expect_same(told.routers, one.routers);
    EXPECT_NEAR(told.record.router_grad_norm, one.record.router_grad_norm, 1e-5 * one.record.router_grad_norm);
  }
}

TEST(RouterReport, TheNormIsOfTheRoutersGradientsAlone) {
  const TestData data(testing_config().vocab_size, {9, 23, 70});
  TestModel model(testing_config(), DType::kF32), frozen(testing_config(), {.freeze = {.entries = {"router"}}});
  const Batch batches[] = {data.batch()};
  const Told told = told_of(model, batches);
  double squares = 0;
  for (const LayerParams& layer : model.model().params().layers) {
    const Tensor gradient = model.state().gradients().finished(model.ctx(), layer.router);
    for (int64_t i = 0; i < gradient.elements(); ++i) squares += std::pow(double{gradient.as<float>()[i]}, 2);
  }
  EXPECT_NEAR(told.record.router_grad_norm, std::sqrt(squares), 1e-6 * std::sqrt(squares));
  EXPECT_GT(squares, 0);
  EXPECT_LT(told.record.router_grad_norm, told.record.grad_norm);
  EXPECT_EQ(told_of(frozen, batches).record.router_grad_norm, 0);
}

}  // namespace
}  // namespace mixtune
