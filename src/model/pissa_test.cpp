// What pairs and weights become by lora_init: pissa, element by element.
#include "model/pissa.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "model/params.h"

namespace mixtune {
namespace {

constexpr int64_t kRank = 3;
constexpr double kScale = 1.75;

const MixtralConfig kShape = {.vocab_size = 37,
                              .hidden_size = 24,
                              .intermediate_size = 20,
                              .num_hidden_layers = 2,
                              .num_attention_heads = 4,
                              .num_key_value_heads = 2,
                              .head_dim = 6,
                              .num_local_experts = 4,
                              .num_experts_per_tok = 2,
                              .max_position_embeddings = 128,
                              .rope_theta = 1e4,
                              .rms_norm_eps = 1e-5,
                              .initializer_range = 0.2};
const Lora kAll = {
    .rank = kRank, .scale = kScale, .pissa = true, .q = true, .k = true, .v = true, .out = true, .experts = true};

using Values = std::vector<double>;

// A State that has begun, and its values before and after.
class Begun {
 public:
  explicit Begun(DType dtype, RankGrid::Experts experts = {0, kShape.num_local_experts})
      : state_(make_layout(kShape, experts, {}, kAll).specs, {}, {.weights = dtype, .masters = dtype == DType::kBF16},
               State::Purpose::kTraining) {
    initialise_weights(ctx_, kShape, {.seed = 1}, state_);
    before = weights();
    initialise_principal_adapters(ctx_, 7, kScale, state_);
    take_off_principal_pairs(ctx_, kScale, state_);
    after = weights();
  }

  // Of a block, wherever it lies: the trained pair's, or what that began as.
  Values factor(const std::string& name, bool initial) const {
    for (int p = 0; p < state_.size(); ++p)
      for (const HfBlock& block : state_.spec(p).blocks)
        if (block.name == name && state_.spec(p).trainable != initial) return values(p, block);
    ADD_FAILURE() << "there is no " << name;
    return {};
  }

  std::map<std::string, Values> before, after;

 private:
  std::map<std::string, Values> weights() const {
    std::map<std::string, Values> all;
    for (int p = 0; p < state_.size(); ++p)
      if (state_.spec(p).origin == ParamSpec::Origin::kStored)
        for (const HfBlock& block : state_.spec(p).blocks) all[block.name] = values(p, block);
    return all;
  }

  Values values(int param, const HfBlock& block) const {
    const Tensor all = state_.primary(param);
    Values found;
    for (int64_t i = block.offset; i < block.offset + block.elements(); ++i)
      found.push_back(all.dtype == DType::kF32 ? all.as<float>()[i] : to_float(all.as<BF16>()[i]));
    return found;
  }

  State state_;
  Stack stack_{"activations", {}, 1 << 20};
  Ctx ctx_{{}, stack_, stack_, nullptr};
};

std::string module_of(const std::string& weight) {
  return weight.substr(0, weight.rfind(".weight"));
}

bool is_adapted(const std::string& weight) {
  return weight.find("_proj") != weight.npos || weight.find(".experts.") != weight.npos;
}

double rounded(double value, DType dtype) {
  const auto narrow = static_cast<float>(value);
  return dtype == DType::kBF16 ? to_float(to_bf16(narrow)) : narrow;
}

TEST(Pissa, TakesOffTheWeightsWhatPairsBeginAs) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(dtype_name(dtype));
    const Begun begun(dtype);
    int adapted = 0;
    for (const auto& [name, was] : begun.before) {
      const Values& is = begun.after.at(name);
      if (!is_adapted(name)) {
        EXPECT_EQ(is, was) << name;
        continue;
      }
      ++adapted;
      const Values a = begun.factor(lora_a_name(module_of(name)), true),
                   b = begun.factor(lora_b_name(module_of(name)), true);
      EXPECT_EQ(begun.factor(lora_a_name(module_of(name)), false), a);
      const Values trained_b = begun.factor(lora_b_name(module_of(name)), false);
      for (size_t i = 0; i < b.size(); ++i) ASSERT_EQ(trained_b[i], -b[i]) << name;
      for (const Values* factor : {&a, &b})
        for (const double value : *factor) ASSERT_EQ(value, rounded(value, dtype)) << name;
      const size_t in = a.size() / kRank;
      double squares_before = 0, squares_after = 0;
      for (size_t i = 0; i < was.size(); ++i) {
        double sum = was[i];
        for (size_t k = 0; k < kRank; ++k) sum += kScale * b[i / in * kRank + k] * a[k * in + i % in];
        const double bound = std::ldexp(std::abs(sum) + 1e-6, dtype == DType::kBF16 ? -8 : -22);
        ASSERT_NEAR(is[i], sum, bound) << name << " " << i;
        squares_before += was[i] * was[i];
        squares_after += is[i] * is[i];
      }
      EXPECT_LT(squares_after, 0.75 * squares_before) << name;  // 3 of at most 24 values, the largest
    }
    EXPECT_EQ(adapted, kShape.num_hidden_layers * (4 + 3 * kShape.num_local_experts));
  }
}

TEST(Pissa, IsTheSameWhicheverExpertsAreHere) {
  const Begun all(DType::kF32), some(DType::kF32, {1, 2});
  EXPECT_LT(some.after.size(), all.after.size());
  for (const auto& [name, values] : some.after) {
    EXPECT_EQ(values, all.after.at(name)) << name;
    if (!is_adapted(name)) continue;
    for (const bool initial : {false, true})
      for (const std::string& factor : {lora_a_name(module_of(name)), lora_b_name(module_of(name))})
        EXPECT_EQ(some.factor(factor, initial), all.factor(factor, initial)) << factor;
  }
}

}  // namespace
}  // namespace mixtune
