// Routers that are driven towards one expert: the watchdog says so at once, and a load-balancing loss brings them back.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "metrics/watchdog.h"
#include "train/step_record.h"
#include "train/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kSteps = 80;

MixtralConfig eight_experts() {
  MixtralConfig config = testing_config();
  config.num_local_experts = 8;
  return config;
}

void add_to_column(const Tensor& matrix, int64_t rows, float number) {
  for (int64_t row = 0; row < rows; ++row) matrix.row(row).as<float>()[0] += number;
}

// All tokens get a part in common, and expert 0 of each layer is drawn to it.
void bias_routers(TestModel& model) {
  State& state = model.state();
  const ModelParams& params = model.model().params();
  add_to_column(state.weight(params.embedding), model.model().config().vocab_size, 1.5F);
  for (const LayerParams& layer : params.layers) add_to_column(state.weight(layer.router), 1, 1.5F);
}

struct Trained {
  std::vector<double> imbalances;  // of each step
  int64_t flagged = 0;             // the first step of which the watchdog says that it collapsed; 0: none
};

Trained train(bool biased, double aux_loss_coefficient, const MixtralConfig& config = eight_experts(),
              double bias_rate = 0) {
  TestModel model(config, DType::kF32);
  if (biased) bias_routers(model);
  const TestData data(model.model().config().vocab_size, {40, 60, 100});
  const Batch batches[] = {data.batch()};
  const Step rows = {.target_weight = static_cast<double>(data.batch().target_tokens())};
  StepRunner runner(model, {.learning_rate = 0.01}, 0);
  Watchdog dog;
  Trained trained;
  for (int64_t step = 1; step <= kSteps; ++step) {
    StepRunner::Loss loss{.target_weight = rows.target_weight};
    if (aux_loss_coefficient > 0) loss.router = {RouterLossType::kSwitch, aux_loss_coefficient};
    runner.forward_backward(batches, loss);
    runner.update({.step = step, .lr_share = 1, .max_norm = 1, .bias_rate = bias_rate});
    StepRecord record = step_record(rows, runner.read());
    record.step = step;
    trained.imbalances.push_back(record.expert_imbalance);
    for (const std::string& warning : dog.look(record))
      if (warning.starts_with("expert_share") && trained.flagged == 0) trained.flagged = step;
  }
  return trained;
}

TEST(RouterCollapse, IsSaidWithinFiveSteps) {
  const Trained biased = train(true, 0);
  EXPECT_GT(biased.flagged, 0);
  EXPECT_LE(biased.flagged, 5);
  EXPECT_EQ(train(false, 0).flagged, 0);
}

// One expert of 8 gets all tokens: 4 times the mean, with 2 experts a token.
TEST(RouterCollapse, EndsWithALoadBalancingLossAndNotWithout) {
  const Trained with = train(true, 1), without = train(true, 0);
  EXPECT_GT(with.imbalances.front(), 3.5);
  EXPECT_LT(with.imbalances.back(), 2);
  EXPECT_GT(without.imbalances.back(), 3.5);
}

// The same without a loss: experts are chosen by their sigmoid and a bias that the step moves.
TEST(RouterCollapse, EndsWithAnExpertBiasAndNotWithout) {
  MixtralConfig config = eight_experts();
  config.router_scores = {Scoring::kSigmoid, 1, true};
  config.expert_bias.resize(config.num_hidden_layers * config.num_local_experts);
  const Trained with = train(true, 0, config, 0.02), without = train(true, 0, config, 0);
  EXPECT_GT(with.imbalances.front(), 3.5);
  EXPECT_LT(with.imbalances.back(), 2);
  EXPECT_GT(without.imbalances.back(), 3.5);
}

// What a biased choice changes: the experts that are counted in the record. Losses count the choice without it.
TEST(ExpertBias, LossesCountTheUnbiasedChoice) {
  MixtralConfig config = eight_experts();
  config.num_hidden_layers = 1;
  config.router_scores = {Scoring::kSigmoid, 1, true};
  const TestData data(config.vocab_size, {40, 60, 100});
  const Batch batches[] = {data.batch()};
  StepRunner::Loss loss{.target_weight = 1, .tokens = data.batch().live_tokens, .documents = 3};
  for (int64_t i = 0; i < kRouterLossTypes; ++i) loss.router[static_cast<RouterLossType>(i)] = 0.1;
  const auto run = [&](float first) {
    config.expert_bias.assign(8, 0.F);
    config.expert_bias[0] = first;
    TestModel model(config, DType::kF32);
    StepRunner runner(model, {.learning_rate = 0.01}, 0);
    runner.forward_backward(batches, loss);
    const StepRunner::Result result = runner.read();
    return std::pair(result.router, result.routers->expert_tokens[0]);
  };
  const auto [none, some_tokens] = run(0);
  const auto [biased, all_tokens] = run(1);
  EXPECT_LT(some_tokens, 200);
  EXPECT_EQ(all_tokens, 200);
  EXPECT_EQ(biased, none);
}

TEST(ExpertBias, StaysInAStepThatIsNotTaken) {
  MixtralConfig config = eight_experts();
  config.router_scores = {Scoring::kSigmoid, 1, true};
  config.expert_bias.assign(config.num_hidden_layers * 8, 0.F);
  const TestData data(config.vocab_size, {40, 60, 100});
  const Batch batches[] = {data.batch()};
  TestModel model(config, DType::kF32);
  StepRunner runner(model, {.learning_rate = 0.01}, 0);
  const auto moves = [&](double target_weight) {
    const std::vector<float> before(model.expert_bias().values().begin(), model.expert_bias().values().end());
    runner.forward_backward(batches, {.target_weight = target_weight});
    runner.update({.step = 1, .lr_share = 1, .max_norm = 1, .bias_rate = 0.01});
    runner.read();
    const std::vector<float> once(model.expert_bias().values().begin(), model.expert_bias().values().end());
    runner.read();  // of the same step
    EXPECT_TRUE(std::ranges::equal(model.expert_bias().values(), once));
    return once != before;
  };
  EXPECT_FALSE(moves(0));  // gradients are infinite
  EXPECT_TRUE(moves(100));
}

}  // namespace
}  // namespace mixtune
