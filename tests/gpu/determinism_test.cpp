// The same training on the same GPU gives the same bits: with deterministic: true in any precision; in fp32, whose
// kernels have a fixed order anyway, as long as the algorithms of the matrix products are the same (a shared file).
#include <cstring>
#include <filesystem>
#include <iterator>

#include "base/temp_folder.h"
#include "gpu/training.h"
#include "kernels/eight_bit/coded_gemm.h"
#include "sameness.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSteps = 20, kLongest = 512, kRows = 2;

struct Trained {
  std::vector<Training::Numbers> steps;
  std::vector<std::string> names;   // of parameters
  std::vector<HostCopies> tensors;  // weights, masters, moments
  int64_t waits = 0, graphs_made = 0;
};

Trained train(const InstanceOptions& options, int64_t micro_batches, int64_t steps = kSteps) {
  const MixtralConfig config = middle_size_config();
  Training training(config, options);
  const MemoryDocuments documents = random_documents(600, kLongest, config.vocab_size, 5);
  Loader loader(documents, {.max_seq_length = kLongest, .packing = true, .shuffle = true}, kRows, micro_batches,
                training.instance().host_memory());
  warm_up(training.instance(), limits_of(loader, kLongest));
  Trained result;
  const int64_t waits = device_waits(training.ctx());
  for (int64_t i = 0; i < steps; ++i) result.steps.push_back(training.step(loader.load(i)));
  result.waits = device_waits(training.ctx()) - waits;
  result.graphs_made = training.graphs_made();
  const State& state = training.state();
  for (int p = 0; p < state.size(); ++p) result.names.push_back(state.spec(p).name);
  for (const auto tensor_of : {&State::weight, &State::master, &State::first_moment, &State::second_moment})
    result.tensors.emplace_back(training.ctx(), state, [&](int p) { return (state.*tensor_of)(p); });
  return result;
}

void expect_same_bits(const Trained& a, const Trained& b) {
  EXPECT_EQ(a.steps, b.steps) << "losses and norms";
  EXPECT_LT(a.steps.back().loss, a.steps.front().loss) << "nothing was learnt";
  for (size_t kind = 0; kind < a.tensors.size(); ++kind)
    for (int p = 0; p < static_cast<int>(a.names.size()); ++p) {
      const Tensor x = a.tensors[kind][p], y = b.tensors[kind][p];
      ASSERT_EQ(x.bytes(), y.bytes());
      if (!x) continue;
      EXPECT_EQ(std::memcmp(x.data, y.data, x.bytes()), 0) << a.names[p] << ", kind " << kind;
    }
}

class Determinism : public GpuTest {};

TEST_F(Determinism, Bf16) {
  InstanceOptions options = bf16_on_gpu();
  options.gpu.deterministic = true;
  expect_same_bits(train(options, 3), train(options, 3));
}

TEST_F(Determinism, Bf16WithoutMastersAndWithBf16Moments) {
  InstanceOptions options = bf16_on_gpu();
  options.gpu.deterministic = true;
  options.types.masters = false;
  options.types.moments = DType::kBF16;
  expect_same_bits(train(options, 3), train(options, 3));
  options.types.gradients = DType::kBF16;
  expect_same_bits(train(options, 1), train(options, 1));
}

TEST_F(Determinism, EightBits) {
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx, EightBitScaling::kTensor}) {
    InstanceOptions options = bf16_on_gpu();
    options.gpu.deterministic = true;
    options.recipe = {.eight_bit = scaling};
    options.recipe.multiplies_codes =
        scaling != EightBitScaling::kTensor &&
        has_coded_products(gpu_info(kGpu.index).compute_capability, scale_rule(options.recipe));
    expect_same_bits(train(options, 3), train(options, 3));
  }
}

TEST_F(Determinism, Fp32) {
  InstanceOptions options = fp32_on(kGpu);
  options.gpu.deterministic = true;
  expect_same_bits(train(options, 3), train(options, 3));
}

// Of micro-batches of several lengths. The host waits for nothing but each step's result.
void expect_graphs_give_the_same_bits(InstanceOptions options) {
  options.gpu.deterministic = true;
  options.capacity = {.factor = 1.25, .padded_tokens = kRows * kLongest};
  const Trained kernels = train(options, 3);
  options.cuda_graphs = true;
  const Trained graphs = train(options, 3);
  expect_same_bits(graphs, kernels);
  EXPECT_EQ(kernels.graphs_made, 0);
  EXPECT_EQ(graphs.waits, kSteps);
  const int64_t pieces = 2 + 2 * middle_size_config().num_hidden_layers;  // embedding, head, and each way of layers
  EXPECT_GE(graphs.graphs_made, 2 * pieces);
  EXPECT_LE(graphs.graphs_made, kSteps * pieces) << "hardly any of three in a step took another's arguments";
}

TEST_F(Determinism, GraphsOfMicroBatches) {
  expect_graphs_give_the_same_bits(bf16_on_gpu());
}

TEST_F(Determinism, GraphsInEightBits) {
  InstanceOptions options = bf16_on_gpu();
  options.recipe = {.eight_bit = EightBitScaling::kBlock};
  options.recipe.multiplies_codes =
      has_coded_products(gpu_info(kGpu.index).compute_capability, scale_rule(options.recipe));
  expect_graphs_give_the_same_bits(options);
}

TEST_F(Determinism, GraphsBesideAdapters) {
  InstanceOptions options = bf16_on_gpu();
  options.lora = {.rank = 8,
                  .scale = 2,
                  .dropout = 0.1,
                  .q = true,
                  .k = true,
                  .v = true,
                  .out = true,
                  .experts = true,
                  .embedding = true};
  expect_graphs_give_the_same_bits(options);
}

// The run does not take what another run measured.
TEST_F(Determinism, WhateverWasMeasuredBefore) {
  const TempFolder cache;
  InstanceOptions options = bf16_on_gpu();
  options.gpu.deterministic = true;
  const Trained first = train(options, 3);
  options.gpu.plan_cache = cache.path();
  options.gpu.deterministic = false;
  train(options, 3, 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(cache.path()), {}), 2) << "not a file of plans and its lock";
  options.gpu.deterministic = true;
  expect_same_bits(first, train(options, 3));
}

TEST_F(Determinism, Fp32WithSharedPlans) {
  const TempFolder cache;
  InstanceOptions options = fp32_on(kGpu);
  options.gpu.plan_cache = cache.path();
  train(options, 3, 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(cache.path()), {}), 2) << "not a file of plans and its lock";
  expect_same_bits(train(options, 3), train(options, 3));
}

}  // namespace
}  // namespace mixtune
