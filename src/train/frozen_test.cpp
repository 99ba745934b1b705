// The key `freeze` in a step: what is frozen has a weight alone, and all else is as it would be without.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "state/adamw.h"
#include "train/memory_plan.h"
#include "train/testing.h"

namespace mixtune {
namespace {

const std::vector<std::vector<std::string>> kFreezes = {
    {"router"},
    {"experts", "norms"},
    {"embeddings", "lm_head"},
    {"layers.0"},
    {"layers.0-1.attention", "*.w2.weight"},
    {"attention", "embeddings", "experts", "lm_head", "norms", "layers.1.router"}};

InstanceOptions frozen(std::vector<std::string> entries, DType dtype = DType::kF32) {
  return {.types = StateTypes::all(dtype), .freeze = {.entries = std::move(entries)}};
}

void run_step(TestModel& test, const Batch& batch) {
  Saved saved = test.model().make_saved();
  test.state().gradients().begin_step();
  run_micro_batch(test.ctx(), test.model(), batch, saved,
                  {.token_scale = 0.1, .router = {RouterLossType::kHuggingface, 0.02}});
  test.state().gradients().finish(test.ctx());
}

// A frozen weight passes gradients on: freezing some leaves the bits of the others, and the norm is that of these.
TEST(Frozen, LeavesTheOtherGradientsAsTheyAre) {
  const MixtralConfig config = testing_config();
  TestModel full(config, DType::kF32);
  const TestData data(config.vocab_size, {9, 23, 70});
  run_step(full, data.batch());
  for (const auto& entries : kFreezes) {
    SCOPED_TRACE(entries.front());
    TestModel part(config, frozen(entries));
    run_step(part, data.batch());
    int compared = 0;
    double squares = 0;
    for (int p = 0; p < part.state().size(); ++p) {
      const Tensor gradient = part.state().gradients().finished(part.ctx(), p),
                   expected = full.state().gradients().finished(full.ctx(), p);
      EXPECT_EQ(static_cast<bool>(gradient), part.state().spec(p).trainable);
      if (!gradient) continue;
      EXPECT_EQ(std::memcmp(gradient.data, expected.data, gradient.bytes()), 0) << part.state().spec(p).name;
      for (int64_t i = 0; i < expected.elements(); ++i) squares += std::pow(double{expected.as<float>()[i]}, 2);
      ++compared;
    }
    EXPECT_GT(compared, 0);
    EXPECT_LT(compared, part.state().size());
    AdamW optimizer(part.state(), {}, 0);
    EXPECT_NEAR(gradient_norm(part.ctx(), optimizer), std::sqrt(squares), 1e-12 * std::sqrt(squares));
  }
}

// Neither its gradient, nor weight decay, nor a rate of its group moves it.
TEST(Frozen, StaysAsItIs) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  for (const auto& entries : kFreezes) {
    SCOPED_TRACE(entries.front());
    const TestModel before(config, DType::kF32);
    TestModel part(config, frozen(entries));
    AdamW optimizer(part.state(),
                    {.learning_rate = 0.1, .lr_groups = {{"router", "0.5"}, {"norms", "0.5"}}, .weight_decay = 0.1}, 0);
    double scale = 1;
    for (int64_t step = 1; step <= 3; ++step) {
      run_step(part, data.batch());
      optimizer.step(part.ctx(), {.step = step, .lr_share = 1, .grad_scale = host_tensor(&scale, {1})});
    }
    for (int p = 0; p < part.state().size(); ++p) {
      const Tensor is = part.state().weight(p), was = before.state().weight(p);
      EXPECT_EQ(std::memcmp(is.data, was.data, is.bytes()) == 0, !part.state().spec(p).trainable)
          << part.state().spec(p).name;
      EXPECT_EQ(static_cast<bool>(part.state().first_moment(p)), part.state().spec(p).trainable);
    }
  }
}

size_t part_of(const MemoryPlan& plan, std::string_view name) {
  for (const MemoryPlan::Part& part : plan.state)
    if (part.name == name) return part.bytes;
  return 0;
}

TEST(Frozen, TakesNoMemoryButItsWeights) {
  const MixtralConfig config = testing_config();
  constexpr BatchLimits kLimits = {.tokens = 512, .longest_document = 128, .documents = 4};
  InstanceOptions options = {
      .types = {.weights = DType::kBF16, .gradients = DType::kF32, .moments = DType::kF32, .masters = true}};
  const MemoryPlan full = plan_memory(config, options, kLimits, kEvenRouting);
  options.freeze.entries = {"experts"};
  const MemoryPlan part = plan_memory(config, options, kLimits, kEvenRouting);
  int64_t experts = 0;
  for (const ParamSpec& spec : make_layout(config).specs)
    if (spec.of_experts) experts += spec.shape.elements();
  const double slack = 64 * kAlignment;
  EXPECT_NEAR(static_cast<double>(part_of(part, "weights")), static_cast<double>(part_of(full, "weights")), slack);
  for (const char* kind : {"master weights", "gradients", "first moments", "second moments"})
    EXPECT_NEAR(static_cast<double>(part_of(full, kind) - part_of(part, kind)), 4.0 * static_cast<double>(experts),
                slack)
        << kind;
}

}  // namespace
}  // namespace mixtune
