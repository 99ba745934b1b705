// Adapters in a step, held against a model whose weights are W + s B A, all of it trained: with dW its gradient,
// dB = s dW A^T and dA = s B^T dW.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "state/adamw.h"
#include "state/adapter_names.h"
#include "train/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kRank = 8;
constexpr double kScale = 1.75;

const std::map<std::string, Lora> kTargets = {
    {"all", {.rank = kRank, .scale = kScale, .q = true, .k = true, .v = true, .out = true, .experts = true}},
    {"q and v", {.rank = kRank, .scale = kScale, .q = true, .v = true}},
    {"k and out", {.rank = kRank, .scale = kScale, .k = true, .out = true}},
    {"experts", {.rank = kRank, .scale = kScale, .experts = true}},
    {"experts, not within SwiGLU", {.rank = 3, .scale = kScale, .experts = true}},
    {"k, and others whole",
     {.rank = kRank, .scale = kScale, .k = true, .whole = {"gate", "lm_head", "embed_tokens", "norm"}}},
    {"the gate and out", {.rank = kRank, .scale = kScale, .out = true, .gate = true}},
    {"the head and q", {.rank = kRank, .scale = kScale, .q = true, .head = true}},
    {"the embedding alone", {.rank = kRank, .scale = kScale, .embedding = true}},
    {"the embedding, the head and v", {.rank = kRank, .scale = kScale, .v = true, .embedding = true, .head = true}},
    {"v, and the last norm whole", {.rank = kRank, .scale = kScale, .v = true, .whole = {"model.norm"}}}};

InstanceOptions adapted(const Lora& lora, DType dtype = DType::kF64) {
  return {.types = StateTypes::all(dtype), .lora = lora};
}

Lora dropping(double share) {
  Lora lora = kTargets.at("all");
  lora.dropout = share;
  return lora;
}

double two_micro_batches(TestModel& test, const Batch& batch) {
  Saved saved = test.model().make_saved();
  saved.noise = 3;
  test.state().gradients().begin_step();
  // Twice: the second adds to the first.
  double sum = 0;
  for (int i = 0; i < 2; ++i)
    sum += run_micro_batch(test.ctx(), test.model(), batch, saved,
                           {.token_scale = 0.1, .router = {RouterLossType::kHuggingface, 0.02}})
               .token_sum;
  test.state().gradients().finish(test.ctx());
  return sum;
}

// The Hugging Face tensors of a State by name: weights or gradients.
class Tensors {
 public:
  enum class Of { kWeights, kGradients };
  Tensors(TestModel& test, Of of) {
    for (int p = 0; p < test.state().size(); ++p) {
      const Tensor all = of == Of::kWeights ? test.state().weight(p) : test.state().gradients().finished(test.ctx(), p);
      if (!all) continue;
      for (const HfBlock& block : test.state().spec(p).blocks)
        tensors_[block.name] = all.view({all.elements()}).slice(block.offset, block.elements()).view(block.shape());
    }
  }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  Tensor at(const std::string& name) const { return tensors_.at(name); }
  const std::map<std::string, Tensor>& all() const { return tensors_; }

 private:
  std::map<std::string, Tensor> tensors_;
};

// Adds s B A to each weight that has a pair.
void merge(const Tensors& adapters, const Tensors& weights) {
  int merged = 0;
  for (const auto& [name, weight] : weights.all()) {
    const std::string module = name.substr(0, name.rfind(".weight"));
    if (!adapters.has(lora_a_name(module))) continue;
    const double* a = adapters.at(lora_a_name(module)).as<double>();
    const double* b = adapters.at(lora_b_name(module)).as<double>();
    const int64_t rows = weight.shape[0], columns = weight.shape[1], rank = adapters.at(lora_a_name(module)).shape[0];
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        for (int64_t r = 0; r < rank; ++r)
          weight.as<double>()[i * columns + j] += kScale * b[i * rank + r] * a[r * columns + j];
    ++merged;
  }
  ASSERT_GT(merged, 0);
}

// max |is - expected| of all elements, over the largest expected one. A vector is one row.
template <class Expected>
void expect_near(const Tensor& all, const std::string& name, const Expected& expected) {
  const Tensor is = all.shape.rank() == 1 ? all.view({1, all.elements()}) : all;
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < is.shape[0]; ++i)
    for (int64_t j = 0; j < is.shape[1]; ++j) {
      const double value = expected(i, j);
      worst = std::max(worst, std::abs(is.as<double>()[i * is.shape[1] + j] - value));
      largest = std::max(largest, std::abs(value));
    }
  EXPECT_GT(largest, 0) << name;
  EXPECT_LT(worst, 1e-11 * largest) << name;
}

void expect_gradients_of_the_merged_model(const MixtralConfig& config, const Lora& lora, Recompute recompute) {
  const TestData data(config.vocab_size, {9, 23, 70});
  InstanceOptions options = adapted(lora);
  options.recompute = recompute;
  TestModel with(config, options), merged(config, DType::kF64);
  const Tensors adapters(with, Tensors::Of::kWeights), weights(merged, Tensors::Of::kWeights);
  merge(adapters, weights);
  merged.state().weights_changed();
  const double loss = two_micro_batches(with, data.batch()), expected = two_micro_batches(merged, data.batch());
  EXPECT_NEAR(loss, expected, 1e-12 * expected);

  const Tensors gradients(with, Tensors::Of::kGradients), full(merged, Tensors::Of::kGradients);
  int64_t pairs = 0, whole = 0;
  for (const auto& [name, dw] : full.all()) {
    const std::string module = name.substr(0, name.rfind(".weight"));
    EXPECT_EQ(gradients.has(name), lora.trains_whole(name)) << name << ": the rest of the base is not trained";
    if (lora.trains_whole(name)) {
      ++whole;
      expect_near(gradients.at(name), name,
                  [&, d = dw.as<double>()](int64_t i, int64_t j) { return d[i * dw.shape[-1] + j]; });
    }
    if (!gradients.has(lora_a_name(module))) continue;
    ++pairs;
    const double *a = adapters.at(lora_a_name(module)).as<double>(), *b = adapters.at(lora_b_name(module)).as<double>(),
                 *d = dw.as<double>();
    const int64_t out = dw.shape[0], in = dw.shape[1], rank = lora.rank;
    expect_near(gradients.at(lora_a_name(module)), lora_a_name(module), [&](int64_t r, int64_t j) {
      double sum = 0;
      for (int64_t i = 0; i < out; ++i) sum += b[i * rank + r] * d[i * in + j];
      return kScale * sum;
    });
    expect_near(gradients.at(lora_b_name(module)), lora_b_name(module), [&](int64_t i, int64_t r) {
      double sum = 0;
      for (int64_t j = 0; j < in; ++j) sum += d[i * in + j] * a[r * in + j];
      return kScale * sum;
    });
  }
  const int64_t per_layer =
      lora.q + lora.k + lora.v + lora.out + lora.gate + (lora.experts ? 3 * config.num_local_experts : 0);
  EXPECT_EQ(pairs, per_layer * config.num_hidden_layers + lora.embedding + lora.head);
  EXPECT_EQ(gradients.all().size(), static_cast<size_t>(2 * pairs + whole));
}

TEST(LoraStep, HasTheGradientsOfTheMergedModel) {
  for (const auto& [targets, lora] : kTargets)
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      SCOPED_TRACE(targets);
      expect_gradients_of_the_merged_model(testing_config(), lora, recompute);
    }
}

// So many logits that they exist for a part of the rows at a time.
TEST(LoraStep, SumsTheHeadsPairOverChunks) {
  MixtralConfig config = testing_config();
  config.vocab_size = 40'000;
  expect_gradients_of_the_merged_model(config, kTargets.at("the head and q"), Recompute::kNone);
}

// The gradients of a step as bytes.
std::string gradient_bytes(TestModel& test) {
  std::string bytes;
  for (int p = 0; p < test.state().size(); ++p)
    if (const Tensor gradient = test.state().gradients().finished(test.ctx(), p))
      bytes.append(static_cast<const char*>(gradient.data), gradient.bytes());
  return bytes;
}

TEST(LoraStep, HasTheSameBitsInALoopOverExpertsAndWithRecompute) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  for (const double dropout : {0.0, 0.2}) {
    InstanceOptions options = adapted(dropping(dropout), DType::kF32);
    TestModel grouped(config, options);
    two_micro_batches(grouped, data.batch());
    const auto expect_the_same = [&] {
      TestModel other(config, options);
      two_micro_batches(other, data.batch());
      EXPECT_EQ(gradient_bytes(grouped), gradient_bytes(other));
    };
    options.recipe.experts = ExpertsImplementation::kLoop;
    expect_the_same();
    options.recipe.experts = ExpertsImplementation::kGrouped;
    for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
      options.recompute = recompute;
      expect_the_same();
    }
  }
}

// The loss of the micro-batch, in a step or (without noise) in an evaluation.
double loss_of(TestModel& test, const Batch& batch, std::optional<uint64_t> noise) {
  Saved saved = test.model().make_saved();
  saved.noise = noise;
  double loss = 0;
  forward_loss(test.ctx(), test.model(), batch, saved, host_tensor(&loss, {1}));
  return loss;
}

TEST(LoraDropout, IsOfEachStepAndOfNoEvaluation) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  TestModel without(config, adapted(dropping(0), DType::kF32)), with(config, adapted(dropping(0.2), DType::kF32));
  const double loss = loss_of(without, data.batch(), {});
  EXPECT_EQ(loss_of(without, data.batch(), 3), loss);
  EXPECT_EQ(loss_of(with, data.batch(), {}), loss);
  const double dropped = loss_of(with, data.batch(), 3);
  EXPECT_NE(dropped, loss);
  EXPECT_EQ(loss_of(with, data.batch(), 3), dropped);
  EXPECT_NE(loss_of(with, data.batch(), 4), dropped);
  Batch later = data.batch();
  later.first_token += 1000;
  EXPECT_NE(loss_of(with, later, 3), dropped);
}

// Each module that may have adapters drops out of its input.
TEST(LoraDropout, IsOfEveryModule) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  for (Lora lora : {Lora{.q = true}, Lora{.k = true}, Lora{.v = true}, Lora{.out = true}, Lora{.experts = true},
                    Lora{.gate = true}, Lora{.head = true}}) {
    SCOPED_TRACE(lora.str());
    lora.rank = kRank;
    TestModel without(config, adapted(lora, DType::kF32));
    lora.dropout = 0.2;
    TestModel with(config, adapted(lora, DType::kF32));
    EXPECT_NE(loss_of(with, data.batch(), 3), loss_of(without, data.batch(), 3));
  }
}

bool is_a(const std::string& factor) {
  return parse_adapter_name(factor, "").factor == AdapterFactor::kA;
}

// B = 0: A's gradient is exactly 0, the loss that of the base bit for bit; and A lies within its bound, the embedding's
// about as a standard normal does.
TEST(LoraStep, BeginsAsTheBase) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  Lora lora = kTargets.at("all");
  lora.embedding = true;
  TestModel base(config, DType::kF32), with(config, adapted(lora, DType::kF32));
  initialise_adapters(with.ctx(), 7, with.state());
  EXPECT_EQ(two_micro_batches(with, data.batch()), two_micro_batches(base, data.batch()));
  double largest = 0, squares = 0, gradients_of_b = 0, gradients_of_rows = 0;
  const Tensors weights(with, Tensors::Of::kWeights), gradients(with, Tensors::Of::kGradients);
  for (const auto& [name, gradient] : gradients.all()) {
    const Tensor weight = weights.at(name);
    const bool of_embedding = is_embedding_factor(name);
    const double bound = of_embedding ? 5 : 1 / std::sqrt(static_cast<double>(weight.shape[1]));
    for (int64_t i = 0; i < gradient.elements(); ++i) {
      if (is_a(name)) {
        ASSERT_EQ(gradient.as<float>()[i], 0) << name;
        ASSERT_LE(std::abs(weight.as<float>()[i]), bound) << name;
        if (of_embedding)
          squares += std::pow(weight.as<float>()[i], 2) / static_cast<double>(weight.elements());
        else
          largest = std::max(largest, std::abs(weight.as<float>()[i]) / bound);
      } else {
        ASSERT_EQ(weight.as<float>()[i], 0) << name;
        (of_embedding ? gradients_of_rows : gradients_of_b) += std::abs(gradient.as<float>()[i]);
      }
    }
  }
  EXPECT_GT(largest, 0.99);
  EXPECT_NEAR(squares, 1, 0.3);
  EXPECT_GT(gradients_of_b, 0);
  EXPECT_GT(gradients_of_rows, 0);
}

// From B = 0 AdamW's first step is the rate times what the gradient alone says; a power of 2 rounds nothing. A has no
// gradient then. The embedding's have their group's rate.
TEST(LoraStep, TrainsBAtAMultipleOfTheRateOfA) {
  constexpr float kRatio = 16;
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  const auto stepped = [&](double ratio) {
    Lora lora = kTargets.at("all");
    lora.embedding = true;
    lora.b_lr_ratio = ratio;
    auto test = std::make_unique<TestModel>(config, adapted(lora, DType::kF32));
    initialise_adapters(test->ctx(), 7, test->state());
    AdamW optimizer(test->state(), {.learning_rate = 1e-3, .lr_groups = {{"experts", "5e-4"}}}, 0);
    two_micro_batches(*test, data.batch());
    double scale = 1;
    optimizer.step(test->ctx(), {.step = 1, .lr_share = 0.5, .grad_scale = host_tensor(&scale, {1})});
    return test;
  };
  const auto same = stepped(1), other = stepped(kRatio);
  const Tensors at_same(*same, Tensors::Of::kWeights), at_other(*other, Tensors::Of::kWeights);
  for (const auto& [name, weight] : at_same.all()) {
    const float ratio = name.find("lora_B") != name.npos ? kRatio : 1;
    float largest = 0;
    for (int64_t i = 0; i < weight.elements(); ++i) {
      ASSERT_EQ(at_other.at(name).as<float>()[i], ratio * weight.as<float>()[i]) << name;
      largest = std::max(largest, std::abs(weight.as<float>()[i]));
    }
    if (ratio > 1) {
      EXPECT_NEAR(largest, name.find("experts") != name.npos ? 2.5e-4 : 5e-4, 1e-6) << name;
    }
  }
}

// An adapter's values are hashes of names: those of a rank with some of the experts are those of all.
TEST(LoraStep, BeginsTheSameWhicheverExpertsAreHere) {
  const MixtralConfig config = testing_config();
  const Lora& lora = kTargets.at("all");
  const auto begun = [&](RankGrid::Experts experts) {
    State state(make_layout(config, experts, {}, lora).specs, {}, DType::kF32, State::Purpose::kInference);
    Stack stack("activations", {}, 1 << 20);
    Ctx ctx{{}, stack, stack, nullptr};
    initialise_adapters(ctx, 7, state);
    std::map<std::string, std::vector<float>> values;
    for (int p = 0; p < state.size(); ++p)
      for (const HfBlock& block : state.spec(p).blocks) {
        const float* at = state.weight(p).as<float>() + block.offset;
        values[block.name] = {at, at + block.elements()};
      }
    return values;
  };
  const auto all = begun({0, config.num_local_experts}), some = begun({1, 2});
  EXPECT_LT(some.size(), all.size());
  for (const auto& [name, values] : some) EXPECT_EQ(values, all.at(name)) << name;
}

}  // namespace
}  // namespace mixtune
