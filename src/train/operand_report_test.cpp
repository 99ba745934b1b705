// What steps in 8 bits tell of their operands, on one rank and on two.
#include "train/operand_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <thread>

#include "metrics/fields.h"
#include "parallel/gloo_communicator.h"
#include "parallel/testing.h"
#include "train/step_runner.h"
#include "train/testing.h"

namespace mixtune {
namespace {

using namespace std::chrono_literals;

using Losses = std::vector<OperandLoss>;

struct Looked {
  InstanceOptions options;
  bool wide = false;  // a row of a weight has values of very different sizes
};

InstanceOptions eight_bit(EightBitScaling scaling, Recompute recompute = Recompute::kNone) {
  return {.types = StateTypes::all(DType::kF32), .recompute = recompute, .recipe = {.eight_bit = scaling}};
}

MixtralConfig looked_at_config() {
  MixtralConfig config = testing_config();
  config.hidden_size = 64;  // of heads of 16
  config.head_dim = 16;
  config.intermediate_size = 96;
  return config;
}

// One step of two documents, all on one rank, or one on each of two.
Losses look_at_step(const Looked& looked, const Ranks& ranks = single_rank()) {
  InstanceOptions options = looked.options;
  options.ranks = &ranks;
  const MixtralConfig config = looked_at_config();
  TestModel model(config, options);
  if (looked.wide) {
    const Tensor qkv = model.state().weight(model.model().params().layers[1].qkv);
    for (int64_t i = 0; i < qkv.elements(); i += 2) qkv.as<float>()[i] *= 0x1p-30f;
  }
  const TestData first(config.vocab_size, {40}), second(config.vocab_size, {40, 25});
  const bool alone = ranks.all->size() == 1;
  std::vector<Batch> batches = {first.batch(), second.batch()};
  if (!alone) batches.erase(batches.begin() + (ranks.all->rank() == 0 ? 1 : 0));
  StepRunner runner(model, {}, 0);
  runner.forward_backward(batches, {.target_weight = 60});
  EXPECT_EQ(runner.read().operands, nullptr) << "it was not asked for";
  runner.forward_backward(batches, {.target_weight = 60, .looks_at_operands = true});
  const StepRunner::Result result = runner.read();
  return result.operands ? *result.operands : Losses();
}

std::vector<Losses> look_on_two_ranks(const Looked& looked) {
  std::signal(SIGPIPE, SIG_IGN);  // as the program does
  MemoryStore store(10s);
  std::vector<Losses> losses(2);
  const auto run = [&](int rank) {
    const Ranks ranks = make_ranks(make_gloo_communicator(store, {.rank = rank, .size = 2, .timeout = 10s}),
                                   {.world = 2, .rank = rank, .expert_parallel = 2});
    losses[rank] = look_at_step(looked, ranks);
  };
  std::thread second([&] { run(1); });
  run(0);
  second.join();
  return losses;
}

size_t place_of(std::string_view name) {
  return static_cast<size_t>(std::ranges::find(kOperandFields, name, &OperandField::name) - kOperandFields);
}

TEST(OperandReport, TellsOfEveryOperandAndLayer) {
  for (const EightBitScaling scaling : {EightBitScaling::kBlock, EightBitScaling::kMx, EightBitScaling::kTensor}) {
    const Losses losses = look_at_step({eight_bit(scaling)});
    ASSERT_EQ(losses.size(), std::size(kOperandFields));
    for (size_t i = 0; i < losses.size(); ++i) {
      SCOPED_TRACE(kOperandFields[i].name);
      ASSERT_EQ(losses[i].amax.size(), 2u);
      for (const double amax : losses[i].amax) EXPECT_GT(amax, 0);
      EXPECT_EQ(losses[i].saturated, 0);
      EXPECT_LT(losses[i].flushed, 0.01);
    }
  }
}

TEST(OperandReport, NamesTheWeightWhoseRangeIsWide) {
  const size_t qkv = place_of("qkv_weight");
  const Losses plain = look_at_step({eight_bit(EightBitScaling::kBlock)}),
               wide = look_at_step({eight_bit(EightBitScaling::kBlock), true});
  EXPECT_LT(plain[qkv].flushed, 1e-3);
  EXPECT_NEAR(wide[qkv].flushed, 0.25, 1e-3);  // half of one of two layers
  EXPECT_EQ(wide[place_of("gate_up_weight")].flushed, plain[place_of("gate_up_weight")].flushed);
}

// amax of a weight is what the weight says.
TEST(OperandReport, AmaxIsOfItsLayer) {
  const Losses losses = look_at_step({eight_bit(EightBitScaling::kMx)});
  TestModel model(looked_at_config(), eight_bit(EightBitScaling::kMx));
  for (const size_t layer : {0, 1}) {
    const LayerParams& params = model.model().params().layers[layer];
    for (const auto& [name, param] : {std::pair("qkv_weight", params.qkv),
                                      {"attention_output_weight", params.attention_out},
                                      {"gate_up_weight", params.gate_up},
                                      {"down_weight", params.down}}) {
      const Tensor weight = model.state().weight(param);
      float amax = 0;
      for (int64_t i = 0; i < weight.elements(); ++i) amax = std::max(amax, std::abs(weight.as<float>()[i]));
      EXPECT_EQ(losses[place_of(name)].amax[layer], amax) << name;
    }
  }
}

void expect_same_losses(const Losses& a, const Losses& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(kOperandFields[i].name);
    EXPECT_EQ(a[i].saturated, b[i].saturated);
    EXPECT_NEAR(a[i].flushed, b[i].flushed, 1e-3 * b[i].flushed);
    for (size_t l = 0; l < a[i].amax.size(); ++l) EXPECT_NEAR(a[i].amax[l], b[i].amax[l], 1e-4 * b[i].amax[l]);
  }
}

TEST(OperandReport, IsTheSameWhateverIsRecomputed) {
  const Losses kept = look_at_step({eight_bit(EightBitScaling::kMx)});
  for (const Recompute recompute : {Recompute::kSelective, Recompute::kFull})
    expect_same_losses(look_at_step({eight_bit(EightBitScaling::kMx, recompute)}), kept);
}

TEST(OperandReport, IsTheSameOnTwoRanks) {
  for (const bool wide : {false, true}) {
    const Looked looked = {eight_bit(EightBitScaling::kMx), wide};
    const Losses one = look_at_step(looked);
    const std::vector<Losses> two = look_on_two_ranks(looked);
    expect_same_losses(two[0], one);
    for (const char* weight : {"qkv_weight", "attention_output_weight", "gate_up_weight", "down_weight"}) {
      const OperandLoss &a = two[0][place_of(weight)], &b = one[place_of(weight)];
      EXPECT_EQ(a.flushed, b.flushed) << weight;
      EXPECT_EQ(a.amax, b.amax) << weight;
    }
    for (size_t i = 0; i < one.size(); ++i) {
      EXPECT_EQ(two[0][i].flushed, two[1][i].flushed);
      EXPECT_EQ(two[0][i].amax, two[1][i].amax);
    }
  }
}

TEST(OperandReport, IsThereIn8BitsAlone) {
  EXPECT_TRUE(look_at_step({{.types = StateTypes::all(DType::kF32)}}).empty());
}

TEST(OperandReport, IsDueInTheFirstStepAndEveryTenth) {
  std::vector<int64_t> due;
  for (int64_t step = 1; step <= 30; ++step)
    if (OperandReport::is_due(step)) due.push_back(step);
  EXPECT_EQ(due, (std::vector<int64_t>{1, 10, 20, 30}));
}

}  // namespace
}  // namespace mixtune
