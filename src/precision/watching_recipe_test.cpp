// What recipes tally of their operands, against the operands themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "kernels/eight_bit/operand_health.h"
#include "kernels/swiglu.h"
#include "kernels/testing.h"
#include "precision/recipe.h"

namespace mixtune {
namespace {

struct WatchedCase {
  const char* name;
  EightBitScaling scaling;
  bool codes = false;
  bool power_of_two = true;
  ExpertsImplementation experts = ExpertsImplementation::kGrouped;
};

constexpr int kQkv = 1, kGateUp = 2, kDown = 4, kParams = 5;  // numbers of weights
constexpr std::array<int32_t, 3> kBegin = {0, 1152, 1152}, kCount = {1100, 0, 129};
constexpr RowGroups kWatchedGroups = {kBegin.data(), kCount.data(), 3};
constexpr int64_t kLiveRows = 1300, kRoutedRows = 1408, kHiddenSize = 128, kFfnSize = 256;

// Rows of a layer and its experts, of sizes from 2^-60 to 1, so that some of each operand is lost.
struct Watched {
  static Buffer<float> values(const Shape& shape, std::string_view name) {
    Buffer<float> x = Buffer<float>::random(shape, name);
    const int64_t columns = shape[shape.rank() - 1];
    for (int64_t i = 0; i < x.size(); ++i)
      x[i] = std::ldexp(x[i], static_cast<int>(i / columns * 7 % 31) - 30 - static_cast<int>(i % columns * 11 % 30));
    return x;
  }
  static Buffer<float> routed(int64_t columns, std::string_view name) {
    Buffer<float> all = values({kRoutedRows, columns}, name), x({kRoutedRows, columns});
    for (int64_t e = 0; e < kWatchedGroups.groups; ++e)
      std::copy_n(&all[kBegin[e] * columns], kCount[e] * columns, &x[kBegin[e] * columns]);
    return x;
  }

  Buffer<float> x = values({kRoutedRows, kHiddenSize}, "x"), dy = values({kRoutedRows, kFfnSize}, "dy"),
                w = values({kFfnSize, kHiddenSize}, "w"), dx{{kRoutedRows, kHiddenSize}}, dw{{kFfnSize, kHiddenSize}};
  Buffer<float> rows = routed(kHiddenSize, "rows"), dout = routed(kHiddenSize, "gradient of the output"),
                w13 = values({3, 2 * kFfnSize, kHiddenSize}, "w1, w3"), w2 = values({3, kHiddenSize, kFfnSize}, "w2"),
                gate_up{{kRoutedRows, 2 * kFfnSize}}, row_weights{{kRoutedRows}, 0.5f}, y{{kRoutedRows, kHiddenSize}},
                drows{{kRoutedRows, kHiddenSize}}, drow_weights{{kRoutedRows}}, dw13{{3, 2 * kFfnSize, kHiddenSize}},
                dw2{{3, kHiddenSize, kFfnSize}}, act{{kRoutedRows, kFfnSize}};

  void run(Ctx& ctx, const Recipe& recipe) {
    const Frame frame(ctx);
    const Recipe::Weight qkv = {w, kQkv, 0}, gate_up_weight = {w13, kGateUp, 0}, down_weight = {w2, kDown, 0};
    for (int64_t r = kLiveRows; r < kRoutedRows; ++r) std::fill_n(&dy[r * kFfnSize], kFfnSize, 0.0f);
    Buffer<float> out({kRoutedRows, kFfnSize});
    recipe.linear(ctx, {.x = x, .weight = qkv, .y = out, .live = kLiveRows});
    recipe.linear_backward(ctx, {.x = x, .weight = qkv, .dy = dy, .dx = dx, .dweight = {dw}, .live = kLiveRows});
    recipe.expert_mlp(ctx, {.x = rows,
                            .gate_up_weight = gate_up_weight,
                            .down_weight = down_weight,
                            .row_weights = row_weights,
                            .groups = kWatchedGroups,
                            .gate_up = gate_up,
                            .y = y});
    // Recomputed: counts nowhere.
    recipe.expert_gate_up(ctx, {.x = rows, .weight = gate_up_weight, .groups = kWatchedGroups, .gate_up = gate_up});
    swiglu_forward(ctx, gate_up, row_weights, act);
    const Recipe::GateUpGradient dgate_up = recipe.push_gate_up_gradient(ctx, gate_up, down_weight);
    recipe.expert_mlp_backward(ctx, {.gate_up_weight = gate_up_weight,
                                     .down_weight = down_weight,
                                     .row_weights = row_weights,
                                     .groups = kWatchedGroups,
                                     .gate_up = gate_up,
                                     .dy = dout,
                                     .dgate_up = dgate_up,
                                     .dx = drows,
                                     .drow_weights = drow_weights,
                                     .ddown_weight = {dw2}});
    recipe.expert_gate_up_weight_gradient(
        ctx, {.x = rows, .kept_rows = {}, .dgate_up = dgate_up, .groups = kWatchedGroups, .dweight = {dw13}});
  }
};

using Sums = std::array<int64_t, kHealthNumbers>;
using Tallies = std::array<std::array<Sums, kOperandRoles>, kParams>;

class WatchingRecipe : public testing::TestWithParam<WatchedCase> {
 protected:
  static std::unique_ptr<Recipe> recipe(bool codes) {
    return make_recipe({.experts = GetParam().experts,
                        .eight_bit = GetParam().scaling,
                        .power_of_two_scales = GetParam().power_of_two,
                        .multiplies_codes = codes});
  }

  static Tensor tensor_of(Tallies& tallies) {
    return host_tensor(&tallies[0][0][0], {kParams, kOperandRoles, kHealthNumbers});
  }

  // What recipe.h's table has forward read of x and a weight, and the gradient of x of dy.
  static EightBits bits(OperandRole role) {
    const ScaleRule rule = GetParam().power_of_two ? ScaleRule::kPowerOfTwo : ScaleRule::kFp32;
    switch (GetParam().scaling) {
      case EightBitScaling::kBlock:
        return {kE4M3, role == OperandRole::kWeight ? ScaleBlocks{128, 128} : ScaleBlocks{1, 128}, rule};
      case EightBitScaling::kMx:
        return {kE4M3, {1, 32}, ScaleRule::kMx};
      case EightBitScaling::kTensor:
        return {role == OperandRole::kGradient ? kE5M2 : kE4M3, {0, 0}, rule};
    }
    return {};
  }

  void expect_tallied(const Sums& tally, OperandRole role, const std::vector<Tensor>& parts) {
    Sums want = {};
    for (const Tensor& part : parts)
      operand_health(
          ctx_,
          {.x = part, .bits = bits(role), .live = part.shape[-2], .tally = host_tensor(want.data(), {kHealthNumbers})});
    EXPECT_EQ(tally, want);
    EXPECT_GT(want[kHealthValues], 0);
    EXPECT_GT(want[kHealthFlushed], 0);
  }

  static std::vector<Tensor> parts_of(Buffer<float>& x) {
    std::vector<Tensor> parts;
    for (int64_t e = 0; e < kWatchedGroups.groups; ++e) parts.push_back(x.tensor().slice(kBegin[e], kCount[e]));
    return parts;
  }

  TestCtx ctx_;
};

TEST_P(WatchingRecipe, TalliesEachOperandOnceAndChangesNothing) {
  Watched plain, watched, rounded;
  Tallies tallies = {}, none = {};
  const std::unique_ptr<Recipe> recipe = this->recipe(GetParam().codes);
  recipe->watch(tensor_of(none));
  recipe->watch({});
  plain.run(ctx_, *recipe);
  EXPECT_EQ(none, Tallies{});
  const size_t peak = ctx_.stack.peak();
  recipe->watch(tensor_of(tallies));
  watched.run(ctx_, *recipe);
  EXPECT_EQ(ctx_.stack.peak(), peak);
  for (const auto of : {&Watched::dx, &Watched::dw, &Watched::y, &Watched::drows, &Watched::drow_weights, &Watched::dw2,
                        &Watched::dw13})
    for (int64_t i = 0; i < (plain.*of).size(); ++i) ASSERT_EQ((plain.*of)[i], (watched.*of)[i]);

  using enum OperandRole;
  const auto of = [&](int param, OperandRole role) {
    return tallies[param][static_cast<size_t>(role)];
  };
  expect_tallied(of(kQkv, kInput), kInput, {watched.x.tensor().slice(0, kLiveRows)});
  expect_tallied(of(kQkv, kWeight), kWeight, {watched.w});
  expect_tallied(of(kQkv, kGradient), kGradient, {watched.dy.tensor().slice(0, kLiveRows)});
  expect_tallied(of(kGateUp, kInput), kInput, parts_of(watched.rows));
  expect_tallied(of(kGateUp, kWeight), kWeight, {watched.w13});
  expect_tallied(of(kGateUp, kGradient), kGradient, parts_of(watched.gate_up));
  expect_tallied(of(kDown, kInput), kInput, parts_of(watched.act));
  expect_tallied(of(kDown, kWeight), kWeight, {watched.w2});
  expect_tallied(of(kDown, kGradient), kGradient, parts_of(watched.dout));
  EXPECT_EQ(tallies[0], Tallies{}[0]);
  EXPECT_EQ(tallies[3], Tallies{}[3]);

  // The gradient that is left has the values that products of rounded operands give.
  rounded.run(ctx_, *this->recipe(false));
  double difference = 0, squares = 0;
  for (int64_t e = 0; e < kWatchedGroups.groups; ++e)
    for (int64_t i = kBegin[e] * 2 * kFfnSize; i < (kBegin[e] + kCount[e]) * 2 * kFfnSize; ++i) {
      difference += std::pow(watched.gate_up[i] - rounded.gate_up[i], 2);
      squares += std::pow(rounded.gate_up[i], 2);
    }
  EXPECT_LE(difference, 1e-12 * squares);
  EXPECT_GT(squares, 0);
}

// Of what has no number, as an expert's part of a weight, nothing is known.
TEST_P(WatchingRecipe, LeavesOutWeightsWithoutANumber) {
  Watched layer;
  Tallies tallies = {};
  const std::unique_ptr<Recipe> recipe = this->recipe(GetParam().codes);
  recipe->watch(tensor_of(tallies));
  recipe->linear_backward(ctx_, {.x = layer.x,
                                 .weight = layer.w.tensor(),
                                 .dy = layer.dy,
                                 .dx = layer.dx,
                                 .dweight = {layer.dw},
                                 .live = kLiveRows});
  EXPECT_EQ(tallies, Tallies{});
}

INSTANTIATE_TEST_SUITE_P(
    Recipes, WatchingRecipe,
    testing::Values(WatchedCase{"Block", EightBitScaling::kBlock},
                    WatchedCase{"BlockLoop", EightBitScaling::kBlock, false, true, ExpertsImplementation::kLoop},
                    WatchedCase{"BlockFp32", EightBitScaling::kBlock, false, false},
                    WatchedCase{"Codes", EightBitScaling::kBlock, true},
                    WatchedCase{"CodesLoop", EightBitScaling::kBlock, true, true, ExpertsImplementation::kLoop},
                    WatchedCase{"Mx", EightBitScaling::kMx}, WatchedCase{"Tensor", EightBitScaling::kTensor},
                    WatchedCase{"TensorLoop", EightBitScaling::kTensor, false, true, ExpertsImplementation::kLoop}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace mixtune
