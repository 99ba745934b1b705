// The whole model's gradients: the float64 oracle against finite differences, and the product against the oracle.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "train/testing.h"

namespace mixtune {
namespace {

struct Case {
  const char* name;
  MixtralConfig config;
  RouterLosses router;
  Capacity capacity = {};
  RouterNoise noise = {};
  Lora lora = {};
  bool sinkhorn = false;
};

MixtralConfig shape(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t experts, int64_t k, int64_t window,
                    bool tied) {
  MixtralConfig config = testing_config();
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  config.num_local_experts = experts;
  config.num_experts_per_tok = k;
  config.sliding_window = window;
  config.tie_word_embeddings = tied;
  return config;
}

MixtralConfig scored(MixtralConfig config, const RouterScores& scores) {
  config.router_scores = scores;
  return config;
}

// By sigmoids and a bias that is uneven.
MixtralConfig biased(MixtralConfig config) {
  config.router_scores = {Scoring::kSigmoid, 1.5, true};
  for (int64_t i = 0; i < config.num_hidden_layers * config.num_local_experts; ++i)
    config.expert_bias.push_back(0.2F * std::sin(static_cast<float>(i)));
  return config;
}

Lora pairs(double dropout) {
  return {.rank = 8, .scale = 1.75, .dropout = dropout, .q = true, .k = true, .v = true, .out = true, .experts = true};
}

RouterLosses huggingface(double scale) {
  return {RouterLossType::kHuggingface, scale};
}

// But kGlobal, which is kSwitch in the one micro-batch of a step.
RouterLosses all_losses() {
  RouterLosses losses = huggingface(0.02);
  losses[RouterLossType::kZ] = 0.002;
  losses[RouterLossType::kSwitch] = 0.03;
  losses[RouterLossType::kSequence] = 0.01;
  return losses;
}

class Gradient : public testing::TestWithParam<Case> {
 protected:
  static TestModel model(DType dtype) {
    return TestModel(GetParam().config, InstanceOptions{.types = StateTypes::all(dtype),
                                                        .lora = GetParam().lora,
                                                        .capacity = GetParam().capacity,
                                                        .router_noise = GetParam().noise,
                                                        .sinkhorn = GetParam().sinkhorn});
  }
  static constexpr double kTokenScale = 0.03;

  // 0: the parameter is not trained.
  static int64_t gradient_elements(TestModel& test, int p) {
    return test.state().spec(p).trainable ? test.state().spec(p).shape.elements() : 0;
  }

  double loss(TestModel& test, const Batch& batch) {
    Saved saved = test.model().make_saved();
    saved.noise = 3;
    test.state().gradients().begin_step();
    const MicroBatchLoss parts = run_micro_batch(test.ctx(), test.model(), batch, saved,
                                                 {.token_scale = kTokenScale, .router = GetParam().router});
    return kTokenScale * parts.token_sum + parts.router;
  }
};

TEST_P(Gradient, OracleMatchesFiniteDifferences) {
  TestModel test = model(DType::kF64);
  TestData data(GetParam().config.vocab_size, {9, 1, 23, 70});
  const Batch batch = data.batch();
  loss(test, batch);
  std::vector<std::vector<double>> gradients;
  for (int p = 0; p < test.state().size(); ++p) {
    gradients.emplace_back();
    if (const int64_t n = gradient_elements(test, p)) gradients.back().assign(test.gradient(p), test.gradient(p) + n);
  }
  for (int p = 0; p < test.state().size(); ++p) {
    if (gradients[p].empty()) continue;
    SCOPED_TRACE(test.state().spec(p).name);
    const std::vector<double>& gradient = gradients[p];
    const auto n = static_cast<int64_t>(gradient.size());
    double* weight = test.state().weight(p).as<double>();
    const std::vector<double> start(weight, weight + n);
    const uint64_t key = random_key(7, test.state().spec(p).name);
    constexpr double kStep = 1e-5;
    double expected = 0, squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      expected += gradient[i] * random_normal(key, i);
      squares += gradient[i] * gradient[i];
    }
    double sides[2];
    for (const int side : {0, 1}) {
      for (int64_t i = 0; i < n; ++i) weight[i] = start[i] + (side ? kStep : -kStep) * random_normal(key, i);
      sides[side] = loss(test, batch);
    }
    std::copy(start.begin(), start.end(), weight);
    // Truncation is of order kStep^2, rounding of order 1e-16 * loss / kStep.
    EXPECT_NEAR((sides[1] - sides[0]) / (2 * kStep), expected, 1e-6 * std::sqrt(squares) + 1e-9);
  }
}

TEST_P(Gradient, ProductMatchesOracle) {
  TestModel oracle = model(DType::kF64), product = model(DType::kF32);
  TestData data(GetParam().config.vocab_size, {9, 1, 23, 70});
  const Batch batch = data.batch();
  const double oracle_loss = loss(oracle, batch);
  EXPECT_NEAR(loss(product, batch), oracle_loss, 1e-6 * oracle_loss);
  double global = 0;
  for (int p = 0; p < oracle.state().size(); ++p)
    for (int64_t i = 0; i < gradient_elements(oracle, p); ++i) global += oracle.gradient(p)[i] * oracle.gradient(p)[i];
  for (int p = 0; p < oracle.state().size(); ++p) {
    if (gradient_elements(oracle, p) == 0) continue;
    SCOPED_TRACE(oracle.state().spec(p).name);
    const Tensor gradient = product.state().gradients().finished(product.ctx(), p);
    double error = 0, squares = 0;
    for (int64_t i = 0; i < gradient.elements(); ++i) {
      error += std::pow(gradient.as<float>()[i] - oracle.gradient(p)[i], 2);
      squares += std::pow(oracle.gradient(p)[i], 2);
    }
    // A top-1 router without auxiliary loss has no gradient: checked against the global norm.
    const bool zero = squares < 1e-24 * global;
    EXPECT_LE(std::sqrt(error), zero ? 1e-6 * std::sqrt(global) : 5e-6 * std::sqrt(squares));
  }
}

// A vocabulary so large that the head takes its rows in several chunks.
TEST(Head, ChunksOfLogitsAddUp) {
  MixtralConfig config = testing_config();
  config.vocab_size = 40000;
  config.hidden_size = 8;
  config.num_hidden_layers = 1;
  const TestData data(config.vocab_size, {200, 129, 100});
  const Batch batch = data.batch();
  ASSERT_GT(batch.target_tokens(), 2 * kRowAlignment);
  TestModel oracle(config, DType::kF64), product(config, DType::kF32);
  double losses[2];
  for (TestModel* test : {&oracle, &product}) {
    Saved saved = test->model().make_saved();
    losses[test == &product] =
        run_micro_batch(test->ctx(), test->model(), batch, saved, {.token_scale = 0.01}).token_sum;
  }
  EXPECT_NEAR(losses[1], losses[0], 1e-6 * losses[0]);
  for (int p = 0; p < oracle.state().size(); ++p) {
    const Tensor gradient = product.state().gradients().finished(product.ctx(), p);
    double error = 0, squares = 0;
    for (int64_t i = 0; i < gradient.elements(); ++i) {
      error += std::pow(gradient.as<float>()[i] - oracle.gradient(p)[i], 2);
      squares += std::pow(oracle.gradient(p)[i], 2);
    }
    EXPECT_LE(std::sqrt(error), 5e-6 * std::sqrt(squares)) << oracle.state().spec(p).name;
  }

  // The loss by its definition, row by row, from the logits.
  const Frame frame(oracle.ctx());
  Saved saved = oracle.model().make_saved();
  oracle.model().begin_batch(oracle.ctx(), batch, saved);
  const Tensor h = oracle.model().layers(oracle.ctx(), batch, oracle.model().all_layers(),
                                         oracle.model().embed(oracle.ctx(), batch), saved, false);
  const Tensor logits = oracle.ctx().stack.push("logits", {1, config.vocab_size}, DType::kF64);
  double sum = 0;
  for (int64_t i = 0; i < batch.target_tokens(); ++i) {
    oracle.model().head_logits(oracle.ctx(), h.slice(batch.target_rows.as<int32_t>()[i], 1), logits);
    double all = 0;
    for (int64_t v = 0; v < config.vocab_size; ++v) all += std::exp(logits.as<double>()[v]);
    sum += std::log(all) - logits.as<double>()[batch.targets.as<int32_t>()[i]];
  }
  EXPECT_NEAR(losses[0], sum, 1e-10 * sum);
}

// By definition: the weighted sum of what each target gives by itself.
TEST(Head, WeightsScaleTheLossAndTheGradientOfEachTarget) {
  const MixtralConfig config = testing_config();
  TestModel model(config, DType::kF64);
  const TestData data(config.vocab_size, {9, 23});
  const Batch all = data.batch();
  Saved saved = model.model().make_saved();
  const auto run = [&](const Batch& batch) {
    model.state().gradients().begin_step();
    return run_micro_batch(model.ctx(), model.model(), batch, saved, {.token_scale = 0.25}).token_sum;
  };
  const int64_t targets = all.target_tokens();
  std::vector<float> weights;
  std::vector<std::vector<double>> gradients(static_cast<size_t>(model.state().size()));
  double expected = 0;
  for (int64_t i = 0; i < targets; ++i) {
    weights.push_back(i % 3 == 0 ? 0.0F : 0.3F * static_cast<float>(i));
    Batch one = all;
    one.target_rows = all.target_rows.slice(i, 1);
    one.targets = all.targets.slice(i, 1);
    const auto weight = static_cast<double>(weights.back());
    expected += weight * run(one);
    for (int p = 0; p < model.state().size(); ++p) {
      std::vector<double>& sum = gradients[static_cast<size_t>(p)];
      sum.resize(static_cast<size_t>(model.state().spec(p).shape.elements()));
      for (size_t k = 0; k < sum.size(); ++k) sum[k] += weight * model.gradient(p)[k];
    }
  }
  Batch weighted = all;
  weighted.weights = host_tensor(weights.data(), {targets});
  EXPECT_NEAR(run(weighted), expected, 1e-10 * expected);
  for (int p = 0; p < model.state().size(); ++p) {
    const std::vector<double>& sum = gradients[static_cast<size_t>(p)];
    double error = 0, squares = 0;
    for (size_t k = 0; k < sum.size(); ++k) {
      error += std::pow(model.gradient(p)[k] - sum[k], 2);
      squares += sum[k] * sum[k];
    }
    EXPECT_LE(std::sqrt(error), 1e-10 * std::sqrt(squares)) << model.state().spec(p).name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Gradient,
    testing::Values(
        Case{"Top2", shape(4, 2, 8, 4, 2, 0, false), huggingface(0)},
        Case{"Top2Aux", shape(4, 2, 8, 4, 2, 0, false), huggingface(0.02)},
        Case{"Top1Window", shape(2, 1, 10, 3, 1, 5, false), huggingface(0.1)},
        Case{"Top1NoAux", shape(2, 2, 16, 3, 1, 0, true), huggingface(0)},
        Case{"Top3Tied", shape(6, 3, 4, 6, 3, 64, true), huggingface(0.02)},
        Case{"AllExperts", shape(4, 4, 8, 2, 2, 1, false), huggingface(0.02)},
        Case{"OneExpert", shape(4, 1, 8, 1, 1, 0, false), huggingface(0.02)},
        Case{"Z", shape(4, 2, 8, 4, 2, 0, false), {RouterLossType::kZ, 0.003}},
        Case{"AuxLoss", shape(4, 2, 8, 4, 2, 0, false), {RouterLossType::kSwitch, 0.05}},
        Case{"Sequence", shape(4, 2, 8, 5, 2, 0, false), {RouterLossType::kSequence, 0.05}},
        Case{"Top1AllAtOnce", shape(4, 2, 8, 4, 1, 0, false), all_losses()},
        Case{"Sigmoid", scored(shape(4, 2, 8, 5, 2, 0, false), {Scoring::kSigmoid, 2.5}), all_losses()},
        Case{"Top1Sigmoid", scored(shape(4, 2, 8, 4, 1, 0, false), {Scoring::kSigmoid, 1}), huggingface(0)},
        Case{"PreSoftmax", scored(shape(4, 2, 8, 5, 2, 0, false), {Scoring::kPreSoftmax, 1}), all_losses()},
        Case{"Top1PreSoftmax", scored(shape(4, 2, 8, 4, 1, 0, false), {Scoring::kPreSoftmax, 0.5}), huggingface(0)},
        Case{"Bias", biased(shape(4, 2, 8, 5, 2, 0, false)), all_losses()},
        Case{"Top1Bias", biased(shape(4, 2, 8, 4, 1, 0, false)), huggingface(0)},
        Case{"Jitter", shape(4, 2, 8, 4, 2, 0, false), all_losses(), {}, {.jitter = 0.3}},
        Case{"DrawnExperts", shape(4, 2, 8, 4, 2, 0, false), all_losses(), {}, {.draws_experts = true}},
        Case{"Adapters", shape(4, 2, 8, 4, 2, 0, false), all_losses(), {}, {}, pairs(0)},
        Case{"AdaptersDropout", shape(4, 2, 8, 4, 2, 0, false), all_losses(), {}, {}, pairs(0.3)},
        Case{"AdaptersDropoutCapacity",
             shape(4, 2, 8, 5, 3, 0, true),
             huggingface(0.02),
             {.factor = 0.7},
             {},
             pairs(0.5)},
        Case{"Sinkhorn",
             scored(shape(4, 2, 8, 5, 2, 0, false), {Scoring::kPreSoftmax, 1}),
             {RouterLossType::kZ, 0.003},
             {},
             {},
             {},
             true},
        Case{"Top1Sinkhorn",
             scored(shape(4, 2, 8, 4, 1, 0, false), {Scoring::kSigmoid, 1}),
             huggingface(0),
             {.factor = 0.6},
             {.jitter = 0.2},
             {},
             true},
        Case{"CapacityByWeight", shape(4, 2, 8, 4, 2, 0, false), all_losses(), {.factor = 0.6}},
        Case{"CapacityByPosition",
             shape(4, 2, 8, 5, 3, 0, false),
             huggingface(0.02),
             {.factor = 0.7, .policy = TokenDropPolicy::kPosition}},
        Case{"CapacityPadded", shape(4, 2, 8, 4, 2, 0, false), huggingface(0), {.factor = 0.3, .padded_tokens = 150}}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace mixtune
