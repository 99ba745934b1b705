// Whole steps on a GPU: their waits and allocations, and that neither memory saved nor the way the experts run changes
// the numbers.
#include <fmt/format.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>

#include "base/count_allocations.h"
#include "data/memory_documents.h"
#include "gpu/replay.h"
#include "gpu/training.h"
#include "tensor/gpu_test.h"
#include "train/memory_plan.h"
#include "train/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kLongest = 512, kRows = 4, kMicroBatches = 3;
constexpr PlanOptions kPacked = {.max_seq_length = kLongest, .packing = true, .shuffle = true};

// fp32's criteria of sameness (docs/design.md, section 4), ten times as wide between a GPU and the CPU.
constexpr double kLoss = 1e-5, kLossOverSteps = 1e-4, kGradients = 5e-5, kMoments = 1e-3, kWeights = 1e-2;
constexpr double kGradientsOnOneGpu = 5e-6, kLossOnOneGpu = 1e-6;

MemoryDocuments middle_size_documents(int64_t count) {
  return random_documents(count, kLongest, middle_size_config().vocab_size, 9);
}

InstanceOptions deterministic(InstanceOptions options) {
  options.gpu.deterministic = true;
  return options;
}

struct Case {
  const char* name;
  InstanceOptions options;
  bool cudnn;  // it may run attention
};

std::vector<Case> cases() {
  return {{"fp32", fp32_on(kGpu), false},
          {"bf16_deterministic", deterministic(bf16_on_gpu()), false},
          {"bf16", bf16_on_gpu(), true}};
}

class EveryStep : public GpuTest, public testing::WithParamInterface<Case> {};

// Runs the same 50 steps twice: in the first pass the driver still loads kernels that a new size of batch needs.
TEST_P(EveryStep, WaitOnceALayerAndAllocateNothing) {
  constexpr int64_t kSteps = 50;
  const MixtralConfig config = middle_size_config();
  const int64_t waits_per_step = config.num_hidden_layers * kMicroBatches + 1;
  Training training(config, GetParam().options);
  const MemoryDocuments documents = middle_size_documents(5000);
  Loader loader(documents, kPacked, kRows, kMicroBatches, training.instance().host_memory());
  warm_up(training.instance(), limits_of(loader, kLongest));
  const Ctx& ctx = training.ctx();
  const size_t mark = ctx.stack.mark();
  int64_t most_made = 0;
  size_t free_memory = 0;
  for (int64_t i = 0; i < 2 * kSteps; ++i) {
    SCOPED_TRACE(i);
    if (i == kSteps) free_memory = gpu_info(kGpu.index).free_memory;
    const int64_t waits = device_waits(ctx);
    const AllocationCount before = allocation_count();
    const Step& rows = loader.load(i % kSteps);
    ASSERT_EQ(static_cast<int64_t>(rows.micro_batches.size()), kMicroBatches);
    ASSERT_LT(rows.epoch, 1) << "a new epoch is planned in memory of its own";
    const Training::Numbers numbers = training.step(rows);
    const AllocationCount after = allocation_count();
    EXPECT_TRUE(std::isfinite(numbers.loss) && std::isfinite(numbers.grad_norm));
    ASSERT_EQ(device_waits(ctx) - waits, waits_per_step);
    EXPECT_EQ(ctx.stack.mark(), mark);
    if (i < kSteps) continue;
    most_made = std::max(most_made, after.made - before.made);
    EXPECT_EQ(after.alive(), before.alive());
  }
  EXPECT_EQ(gpu_info(kGpu.index).free_memory, free_memory) << "(if nothing else runs on this GPU)";
  EXPECT_EQ(late_plans(ctx), 0);
  fmt::print("at most {} allocations by operator new in a step\n", most_made);
  if (!GetParam().cudnn) {  // cuDNN's frontend makes a list of pointers in each call
    EXPECT_EQ(most_made, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Options, EveryStep, testing::ValuesIn(cases()),
                         [](const auto& test_case) { return test_case.param.name; });

class Steps : public GpuTest {};

// So it is when a rank waits for what another rank's GPU never sends.
TEST_F(Steps, WhatDoesNotEndInTimeIsGivenUp) {
  const auto gpu = make_gpu(kGpu, {.patience = 0.02, .give_up = [](const std::string& message) {
                                     throw std::runtime_error(message);
                                   }});
  Stack stack("test", kGpu, size_t{1} << 30), host_stack("test", {}, 1 << 10);
  Ctx ctx{kGpu, stack, host_stack, gpu.get()};
  const Tensor zeros = stack.push("zeros", {(int64_t{1} << 30) / 4}, DType::kF32);
  zero(ctx, zeros);
  EXPECT_NO_THROW(wait(ctx));
  for (int i = 0; i < 500; ++i) zero(ctx, zeros);  // at 8 TB/s 67 ms
  try {
    wait(ctx);
    FAIL() << "it was waited for";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "the GPU has not come to an end within 0.02 s");
  }
}

// One step's numbers and gradients, and the numbers of the one that follows its update.
struct TwoSteps {
  Training::Numbers first, second;
  std::unique_ptr<HostCopies> gradients;
};

TwoSteps two_steps(Training& training) {
  const MemoryDocuments documents = middle_size_documents(400);
  Loader loader(documents, kPacked, kRows, kMicroBatches, training.instance().host_memory());
  TwoSteps result;
  result.first = training.step(loader.load(0));
  State& state = training.state();
  result.gradients = std::make_unique<HostCopies>(training.ctx(), state,
                                                  [&](int p) { return state.gradients().finished(training.ctx(), p); });
  result.second = training.step(loader.load(1));
  return result;
}

TwoSteps two_steps(const InstanceOptions& options) {
  Training training(middle_size_config(), options);
  return two_steps(training);
}

void expect_same_bits(const TwoSteps& a, const TwoSteps& b) {
  EXPECT_EQ(a.first.loss, b.first.loss);
  EXPECT_EQ(a.first.grad_norm, b.first.grad_norm);
  EXPECT_EQ(a.second.loss, b.second.loss);
  EXPECT_EQ(a.second.grad_norm, b.second.grad_norm);
  const ModelLayout layout = make_layout(middle_size_config());
  for (int p = 0; p < static_cast<int>(layout.specs.size()); ++p) {
    const Tensor x = (*a.gradients)[p], y = (*b.gradients)[p];
    EXPECT_EQ(std::memcmp(x.data, y.data, x.bytes()), 0) << layout.specs[p].name;
  }
}

// Recomputed values come from the same kernels on the same operands.
TEST_F(Steps, RecomputeGivesTheSameBits) {
  for (InstanceOptions options : {deterministic(fp32_on(kGpu)), deterministic(bf16_on_gpu())}) {
    const TwoSteps kept = two_steps(options);
    for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull}) {
      SCOPED_TRACE(fmt::format("{}, recompute {}", dtype_name(options.types.weights), static_cast<int>(recompute)));
      options.recompute = recompute;
      const TwoSteps recomputed = two_steps(options);
      EXPECT_EQ(recomputed.first.recomputed, 0);
      expect_same_bits(recomputed, kept);
    }
  }
}

// The stack has room for what some layers' experts keep (on one GPU gate-up outputs): the others recompute it.
TEST_F(Steps, ShortStackDropsLayers) {
  const MixtralConfig config = middle_size_config();
  for (InstanceOptions options : {deterministic(fp32_on(kGpu)), deterministic(bf16_on_gpu())}) {
    SCOPED_TRACE(dtype_name(options.types.weights));
    const TwoSteps kept = two_steps(options);
    EXPECT_EQ(kept.first.recomputed, 0);

    options.stack_bytes = 0;
    const BatchLimits limits = {.tokens = kRows * kLongest, .longest_document = kLongest, .documents = kLongest};
    const MemoryPlan plan = plan_memory(config, options, limits, kWorstRouting);
    ASSERT_GT(plan.activations, plan.least_activations);
    options.stack_bytes = plan.least_activations + (plan.activations - plan.least_activations) * 2 / 5;
    Training training(config, options);
    training.instance().model().set_still_needed(plan.still_needed);
    const TwoSteps recomputed = two_steps(training);
    EXPECT_GT(recomputed.first.recomputed, 0);
    EXPECT_LT(recomputed.first.recomputed, kMicroBatches * config.num_hidden_layers);
    fmt::print("{} of {} layers recomputed\n", recomputed.first.recomputed, kMicroBatches * config.num_hidden_layers);
    expect_same_bits(recomputed, kept);
  }
}

TEST_F(Steps, LoopAndGroupedExpertsAgree) {
  InstanceOptions options = deterministic(fp32_on(kGpu));  // the same products outside of experts, so the same routing
  const TwoSteps grouped = two_steps(options);
  options.recipe.experts = ExpertsImplementation::kLoop;
  Training training(middle_size_config(), options);
  const TwoSteps loop = two_steps(training);
  EXPECT_NEAR(loop.first.loss, grouped.first.loss, kLossOnOneGpu * grouped.first.loss);
  EXPECT_NEAR(loop.first.grad_norm, grouped.first.grad_norm, kLossOnOneGpu * grouped.first.grad_norm);
  const auto expected = by_hub_name(training.state(), *grouped.gradients);
  expect_tensors_same(
      "gradient", training.state(), [&](int p) { return (*loop.gradients)[p]; },
      [&](const HfBlock& slice) { return expected.at(slice.name); }, kGradientsOnOneGpu);
}

// The vocabulary makes the head take 2048 rows of logits at a time.
TEST_F(Steps, TheHeadsGradientInBf16IsThatInFp32RoundedOnce) {
  MixtralConfig config = middle_size_config();
  config.vocab_size = 65536;
  const TestData data(config.vocab_size, std::vector<int64_t>(8, kLongest));
  const Batch batch = data.batch();
  ASSERT_GT(batch.target_tokens(), 2048);
  InstanceOptions options = deterministic(bf16_on_gpu());
  Instance wide(config, options);
  options.types.gradients = DType::kBF16;
  Instance narrow(config, options);
  fill_weights(wide);
  fill_weights(narrow);
  const Backward want = run_backward(wide, {&batch, 1}), got = run_backward(narrow, {&batch, 1});
  EXPECT_EQ(got.loss, want.loss);
  const int head = make_layout(config).params.lm_head;
  const Tensor sums = want.gradients[head], rounded = got.gradients[head];
  for (int64_t i = 0; i < sums.elements(); ++i)
    ASSERT_EQ(rounded.as<float>()[i], to_float(to_bf16(sums.as<float>()[i]))) << i;
}

// An accumulation step has micro-batches of every number of rows, in fp32 as the CPU computes it. A choice of experts
// that is closer than fp32's rounding may go either way: the CPU's are replayed.
TEST_F(Steps, BatchesOfAllSizesAgreeWithTheCpu) {
  const MixtralConfig config = middle_size_config();
  const std::vector<std::vector<int64_t>> lengths = {
      {5}, {128}, {127, 2}, {256, 100, 1, 27}, {300, 300, 39}, {512, 512, 128}, {700, 100, 33, 1, 1, 500, 700}, {2048}};
  std::vector<TestData> data;
  std::vector<Batch> batches;
  for (const auto& documents : lengths) data.emplace_back(config.vocab_size, documents);
  for (const TestData& each : data) batches.push_back(each.batch());

  Instance cpu(config, fp32_on({})), gpu(config, fp32_on(kGpu));
  fill_weights(cpu);
  fill_weights(gpu);
  warm_up(gpu, {.tokens = 2048, .longest_document = 2048, .documents = 8, .micro_batches = 8});
  std::vector<std::unique_ptr<Replay>> replays;
  std::vector<std::vector<Tensor>> routing;
  for (const Batch& batch : batches) {
    replays.push_back(std::make_unique<Replay>(gpu, run_forward(cpu, batch)));
    routing.push_back(replays.back()->layers());
  }
  const Backward want = run_backward(cpu, batches), got = run_backward(gpu, batches, routing);
  EXPECT_NEAR(got.loss, want.loss, kLoss * want.loss);
  const auto expected = by_hub_name(cpu.state(), want.gradients);
  const FarthestTensor farthest = expect_tensors_same(
      "gradient", gpu.state(), [&](int p) { return got.gradients[p]; },
      [&](const HfBlock& slice) { return expected.at(slice.name); }, kGradients);
  fmt::print("loss off by {:.1e} of it, gradients by at most {:.1e} ({})\n", std::abs(got.loss / want.loss - 1),
             farthest.relative, farthest.name);
  EXPECT_EQ(late_plans(gpu.ctx()), 0);
}

// Batches have every multiple of kRowAlignment up to the limit, and all kinds of tails: no plan is built after warm-up.
TEST_F(Steps, NoSizeNeedsALatePlan) {
  const MixtralConfig config = middle_size_config();
  constexpr int64_t kMost = 2048;
  for (const InstanceOptions& options : {fp32_on(kGpu), bf16_on_gpu()}) {
    Instance instance(config, options);
    fill_weights(instance);
    warm_up(instance, {.tokens = kMost, .longest_document = kMost, .documents = kMost});
    for (int64_t tokens = 1; tokens <= kMost; tokens += tokens < kRowAlignment ? 42 : 121)
      for (const int64_t documents : {int64_t{1}, int64_t{3}, tokens / 2 + 1}) {
        if (documents > tokens) continue;
        std::vector<int64_t> lengths(documents, tokens / documents);
        lengths[0] += tokens - std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
        const TestData data(config.vocab_size, lengths);
        const Batch batch = data.batch();
        if (batch.target_tokens() == 0) continue;
        EXPECT_TRUE(std::isfinite(run_backward(instance, {&batch, 1}).loss)) << tokens << " tokens";
      }
    EXPECT_EQ(late_plans(instance.ctx()), 0);
  }
}

// Expects the CPU's training: five steps of three micro-batches with AdamW, in fp32, of a model so small that fp32's
// rounding decides no choice of experts.
void expect_the_cpus_training(bool weighted) {
  constexpr int64_t kSteps = 5;
  MixtralConfig config = testing_config();
  config.router_aux_loss_coef = 0.02;
  const MemoryDocuments documents = random_documents(600, 60, config.vocab_size, 3, weighted);
  Training cpu(config, fp32_on({})), gpu(config, fp32_on(kGpu));
  const HostCopies start(cpu.ctx(), cpu.state(), [&](int p) { return cpu.state().weight(p); });
  Loader loader(documents, {.max_seq_length = 60, .packing = true}, 2, 3, gpu.instance().host_memory());
  warm_up(gpu.instance(), limits_of(loader, 60));
  for (int64_t i = 0; i < kSteps; ++i) {
    SCOPED_TRACE(i);
    const Step& rows = loader.load(i);
    const Training::Numbers want = cpu.step(rows), got = gpu.step(rows);
    const double bound = i == 0 ? kLoss : kLossOverSteps;
    EXPECT_NEAR(got.loss, want.loss, bound * want.loss);
    EXPECT_NEAR(got.grad_norm, want.grad_norm, bound * want.grad_norm);
  }
  const State& want = cpu.state();
  for (const auto tensor_of : {&State::first_moment, &State::second_moment}) {
    const HostCopies expected(cpu.ctx(), want, [&](int p) { return (want.*tensor_of)(p); });
    const HostCopies actual(gpu.ctx(), want, [&](int p) { return (gpu.state().*tensor_of)(p); });
    const auto by_name = by_hub_name(want, expected);
    expect_tensors_same(
        "moment", want, [&](int p) { return actual[p]; }, [&](const HfBlock& slice) { return by_name.at(slice.name); },
        kMoments);
  }
  const HostCopies weights(gpu.ctx(), gpu.state(), [&](int p) { return gpu.state().weight(p); });
  double error = 0, update = 0;
  for (int p = 0; p < want.size(); ++p)
    for (int64_t i = 0; i < want.weight(p).elements(); ++i) {
      error += std::pow(element(weights[p], i) - element(want.weight(p), i), 2);
      update += std::pow(element(want.weight(p), i) - element(start[p], i), 2);
    }
  EXPECT_LT(std::sqrt(error / update), kWeights);
}

TEST_F(Steps, AccumulatedTrainingAgreesWithTheCpu) {
  expect_the_cpus_training(false);
}

TEST_F(Steps, WeightedTrainingAgreesWithTheCpu) {
  expect_the_cpus_training(true);
}

}  // namespace
}  // namespace mixtune
