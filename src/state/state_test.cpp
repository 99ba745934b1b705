#include "state/state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "state/adamw.h"
#include "tensor/out_of_memory.h"

namespace mixtune {
namespace {

// A matrix of two Hugging Face tensors, a frozen matrix, and a norm.
std::vector<ParamSpec> specs() {
  return {{.name = "pair",
           .shape = {4, 3},
           .blocks = {{.name = "a", .box = Box({1, 3})}, {.name = "b", .box = Box({3, 3}), .offset = 3}}},
          {.name = "frozen", .shape = {2, 2}, .blocks = {{.name = "c", .box = Box({2, 2})}}, .trainable = false},
          {.name = "norm", .shape = {3}, .blocks = {{.name = "d", .box = Box({3})}}}};
}

struct Fixture : testing::Test {
  State state{specs(), {}, DType::kF32, State::Purpose::kTraining};
  Stack stack{"test", {}, 1 << 20};
  Ctx ctx{{}, stack, stack};

  void fill(const Tensor& tensor, float value) { std::fill_n(tensor.as<float>(), tensor.elements(), value); }
};

using StateTest = Fixture;

TEST_F(StateTest, GradientsAreWrittenFirstThenAdded) {
  state.gradients().begin_step();
  EXPECT_FALSE(state.gradients().gradient(0).accumulate);
  state.gradients().notify(0);
  EXPECT_TRUE(state.gradients().gradient(0).accumulate);
  state.gradients().begin_step();
  EXPECT_FALSE(state.gradients().gradient(0).accumulate);
}

TEST_F(StateTest, AGradientThatNobodyWroteIsZero) {
  state.gradients().begin_step();
  fill(state.gradients().gradient(0).tensor, 7);
  state.gradients().notify(0);
  fill(state.gradients().gradient(2).tensor, 7);  // left over from an earlier step
  EXPECT_EQ(state.gradients().finished(ctx, 0).as<float>()[0], 7);
  EXPECT_EQ(state.gradients().finished(ctx, 2).as<float>()[0], 0);
}

TEST_F(StateTest, AFrozenParameterHasAWeightAlone) {
  EXPECT_TRUE(state.get(ctx, 1));
  EXPECT_FALSE(state.gradients().gradient(1).tensor);
  EXPECT_FALSE(state.first_moment(1));
  EXPECT_THROW(state.gradients().notify(1), std::logic_error);
}

TEST_F(StateTest, AVersionChangesWithTheWeight) {
  const int64_t trained = state.version(0), frozen = state.version(1);
  state.weights_trained();
  EXPECT_NE(state.version(0), trained);
  EXPECT_EQ(state.version(1), frozen);
  state.publish(ctx, 1);  // as after loading
  EXPECT_NE(state.version(1), frozen);
  const int64_t loaded = state.version(0);
  state.share_weights(ctx);
  EXPECT_NE(state.version(0), loaded);
}

TEST_F(StateTest, InferenceHoldsWeightsAlone) {
  const State inference(specs(), {}, DType::kF32, State::Purpose::kInference);
  size_t used = 0;
  for (const auto& arena : inference.arenas()) used += arena->used();
  EXPECT_EQ(used, 3 * kAlignment * sizeof(float));  // each begins at a multiple of kAlignment elements
}

TEST_F(StateTest, AParameterMayHaveADTypeOfItsOwn) {
  std::vector<ParamSpec> mixed = specs();
  mixed[0].dtype = DType::kBF16;
  State held(mixed, {}, {.masters = true}, State::Purpose::kTraining);
  EXPECT_EQ(held.weight(0).dtype, DType::kBF16);
  EXPECT_EQ(held.weight(2).dtype, DType::kF32);
  EXPECT_EQ(held.master(0).dtype, DType::kF32);  // the parameter is narrower
  EXPECT_FALSE(held.master(2));
}

TEST_F(StateTest, AModelTooLargeForTheMachineIsOneClearLine) {
  const int64_t rows = int64_t{1} << 40;
  try {
    State({{.name = "huge", .shape = {rows, 64}, .blocks = {{.name = "huge", .box = Box({rows, 64})}}}}, {},
          DType::kF32, State::Purpose::kTraining);
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_NE(std::string(error.what()).find("gradients (256.0 TiB) and moments (512.0 TiB) need 1024.0 TiB"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(StateTest, SlicesMustFillTheirParameter) {
  std::vector<ParamSpec> bad = specs();
  bad[0].blocks[1].offset = 4;
  EXPECT_THROW(State(bad, {}, DType::kF32, State::Purpose::kInference), std::logic_error);
}

TEST_F(StateTest, AdamWDecaysMatricesAndLeavesNormsAndFrozenAlone) {
  for (int p = 0; p < 3; ++p) fill(state.weight(p), 1);
  state.gradients().begin_step();
  state.gradients().finish(ctx);  // all gradients zero: only decay moves weights
  double scale = 1;
  AdamW(state, {.learning_rate = 0.1, .weight_decay = 0.5}, 0)
      .step(ctx, {.step = 1, .lr_share = 1, .grad_scale = host_tensor(&scale, {1})});
  EXPECT_FLOAT_EQ(state.weight(0).as<float>()[0], 0.95f);
  EXPECT_EQ(state.weight(1).as<float>()[0], 1);
  EXPECT_EQ(state.weight(2).as<float>()[0], 1);
}

TEST_F(StateTest, GradientNormCountsEachParameterOnce) {
  AdamW optimizer(state, {}, 0);
  state.gradients().begin_step();
  fill(state.gradients().gradient(0).tensor, 2);
  state.gradients().notify(0);
  fill(state.gradients().gradient(2).tensor, 4);
  state.gradients().notify(2);
  state.gradients().finish(ctx);
  EXPECT_DOUBLE_EQ(gradient_norm(ctx, optimizer), std::sqrt(12 * 4.0 + 3 * 16.0));
}

}  // namespace
}  // namespace mixtune
