// The same documents in a step give the same loss, gradients and update, however they are packed and split
// (docs/design.md, section 4); and the same run gives the same bits.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <omp.h>

#include "config/router_losses.h"
#include "short_training.h"

namespace mixtune {
namespace {

TrainingRecord train(const MixtralConfig& config, DType dtype, const Layout& layout, double router_coefficient) {
  return run_training(
      {.config = config, .layout = layout, .router = {RouterLossType::kHuggingface, router_coefficient}},
      {.types = StateTypes::all(dtype)});
}

MixtralConfig config_with_window(int64_t window) {
  MixtralConfig config = testing_config();
  config.sliding_window = window;
  return config;
}

constexpr Layout kOneRowEach = {false, 9, 1};

TEST(Invariance, PackingAndAccumulationWithoutRouterLoss) {
  for (const int64_t window : {0, 6})
    for (const auto& [dtype, bounds] : {std::pair{DType::kF32, kFp32Bounds}, std::pair{DType::kF64, kFp64Bounds}}) {
      const TrainingRecord reference = train(config_with_window(window), dtype, kOneRowEach, 0);
      for (const Layout& layout : {Layout{false, 1, 9}, Layout{false, 2, 5}, Layout{false, 4, 3}, Layout{true, 9, 1},
                                   Layout{true, 1, 9}, Layout{true, 2, 5}}) {
        SCOPED_TRACE(fmt::format("window {}, {}, packing {}, {} rows x {}", window, dtype_name(dtype), layout.packing,
                                 layout.rows_per_micro_batch, layout.micro_batches));
        expect_same(train(config_with_window(window), dtype, layout, 0), reference, bounds);
      }
    }
}

// The huggingface loss belongs to one accumulation step: packing does not change it, splitting does.
TEST(Invariance, PackingWithRouterLoss) {
  for (const auto& [dtype, bounds] : {std::pair{DType::kF32, kFp32Bounds}, std::pair{DType::kF64, kFp64Bounds}}) {
    const TrainingRecord reference = train(testing_config(), dtype, kOneRowEach, 0.02);
    expect_same(train(testing_config(), dtype, {true, 9, 1}, 0.02), reference, bounds);
  }
}

// The losses that are sums over tokens or documents belong to neither: nothing changes them.
TEST(Invariance, PackingAndAccumulationWithZAndSequenceLosses) {
  for (const RouterLossType type : {RouterLossType::kZ, RouterLossType::kSequence})
    for (const auto& [dtype, bounds] : {std::pair{DType::kF32, kFp32Bounds}, std::pair{DType::kF64, kFp64Bounds}}) {
      const auto train = [&, dtype = dtype](const Layout& layout) {
        return run_training({.layout = layout, .router = {type, 0.05}}, {.types = StateTypes::all(dtype)});
      };
      const TrainingRecord reference = train(kOneRowEach);
      EXPECT_GT(std::abs(reference.losses[0] - run_training({}, {.types = StateTypes::all(dtype)}).losses[0]), 0.01);
      for (const Layout& layout : {Layout{false, 1, 9}, Layout{false, 4, 3}, Layout{true, 9, 1}, Layout{true, 2, 5}}) {
        SCOPED_TRACE(fmt::format("{}, packing {}, {} rows x {}", name_of(type), layout.packing,
                                 layout.rows_per_micro_batch, layout.micro_batches));
        expect_same(train(layout), reference, bounds);
      }
    }
}

// The others belong to an accumulation step: packing does not change them, splitting does.
TEST(Invariance, PackingWithPooledLosses) {
  for (const RouterLossType type : {RouterLossType::kSwitch, RouterLossType::kGlobal}) {
    const auto train = [&](const Layout& layout) {
      return run_training({.layout = layout, .router = {type, 0.05}}, {.types = StateTypes::all(DType::kF64)});
    };
    const TrainingRecord whole = train(kOneRowEach), split = train({false, 3, 3});
    expect_same(train({true, 9, 1}), whole, kFp64Bounds);
    EXPECT_NE(split.losses[0], whole.losses[0]);
  }
}

TrainingRecord train_weighted(DType dtype, const Layout& layout, ShortTraining::Weights weights) {
  return run_training({.layout = layout, .weights = weights}, {.types = StateTypes::all(dtype)});
}

TEST(Invariance, PackingAndAccumulationOfWeightedTargets) {
  using Weights = ShortTraining::Weights;
  for (const auto& [dtype, bounds] : {std::pair{DType::kF32, kFp32Bounds}, std::pair{DType::kF64, kFp64Bounds}}) {
    const TrainingRecord reference = train_weighted(dtype, kOneRowEach, Weights::kUneven);
    EXPECT_NE(reference.losses, train_weighted(dtype, kOneRowEach, Weights::kNone).losses);
    for (const Layout& layout : {Layout{false, 1, 9}, Layout{false, 4, 3}, Layout{true, 2, 5}})
      expect_same(train_weighted(dtype, layout, Weights::kUneven), reference, bounds);
  }
}

// The weights are powers of two, so that nothing is rounded otherwise.
TEST(Weights, ThatAreAllTheSameChangeNoBit) {
  const Layout layout = {true, 2, 5};
  const TrainingRecord plain = train_weighted(DType::kF32, layout, ShortTraining::Weights::kNone),
                       twos = train_weighted(DType::kF32, layout, ShortTraining::Weights::kTwos);
  EXPECT_EQ(twos.losses, plain.losses);
  EXPECT_EQ(twos.norms, plain.norms);
  EXPECT_EQ(twos.weights, plain.weights);
}

TEST(Determinism, SameBitsTwiceAndOnAnyNumberOfThreads) {
  const Layout layout = {true, 2, 5};
  MixtralConfig config = testing_config();
  config.vocab_size = 3000;  // tables of several blocks of the gradient norm, logits of several tiles
  const TrainingRecord reference = train(config, DType::kF32, layout, 0.02);
  const int threads = omp_get_max_threads();
  for (const int n : {threads, 1, 3}) {
    omp_set_num_threads(n);
    const TrainingRecord again = train(config, DType::kF32, layout, 0.02);
    EXPECT_EQ(again.losses, reference.losses) << n << " threads";
    EXPECT_EQ(again.norms, reference.norms) << n << " threads";
    EXPECT_EQ(again.weights, reference.weights) << n << " threads";
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace mixtune
