// The model's parts: layout of parameters, initial weights, dispatcher, router loss.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "data/batch_builder.h"
#include "kernels/attention/attention.h"
#include "kernels/moe/router.h"
#include "model/dispatcher.h"
#include "model/instance.h"
#include "model/kv_cache.h"
#include "model/params.h"
#include "tensor/ctx.h"

namespace mixtune {
namespace {

const MixtralConfig kConfig = {.vocab_size = 11,
                               .hidden_size = 8,
                               .intermediate_size = 6,
                               .num_hidden_layers = 2,
                               .num_attention_heads = 2,
                               .num_key_value_heads = 1,
                               .head_dim = 4,
                               .num_local_experts = 3,
                               .num_experts_per_tok = 2,
                               .initializer_range = 0.02};

TEST(Layout, HoldsEveryHubTensorOnce) {
  const ModelLayout layout = make_layout(kConfig);
  std::set<std::string> names;
  for (const ParamSpec& spec : layout.specs)
    for (const HfBlock& slice : spec.blocks) EXPECT_TRUE(names.insert(slice.name).second) << slice.name;
  EXPECT_EQ(names.size(), 3 + 2 * (2 + 4 + 1 + 3 * 3u));
  EXPECT_TRUE(names.count("model.layers.1.block_sparse_moe.experts.2.w3.weight"));
  EXPECT_TRUE(names.count("lm_head.weight"));
}

TEST(Layout, GateUpIsW1ThenW3OfEachExpert) {
  const ModelLayout layout = make_layout(kConfig);
  const ParamSpec& spec = layout.specs[layout.params.layers[1].gate_up];
  EXPECT_EQ(spec.shape, Shape({3, 12, 8}));
  EXPECT_EQ(spec.blocks[2].name, "model.layers.1.block_sparse_moe.experts.1.w1.weight");
  EXPECT_EQ(spec.blocks[2].offset, 12 * 8);
  EXPECT_EQ(spec.blocks[3].name, "model.layers.1.block_sparse_moe.experts.1.w3.weight");
}

TEST(Layout, RanksHoldEveryExpertOnceAndKnowOfTheOthers) {
  std::multiset<std::string> here;
  for (int64_t e = 0; e < kConfig.num_local_experts; ++e) {
    const ModelLayout layout = make_layout(kConfig, {e, 1});
    const ParamSpec& down = layout.specs[layout.params.layers[0].down];
    EXPECT_EQ(down.shape, Shape({1, 8, 6}));
    EXPECT_TRUE(down.of_experts);
    EXPECT_EQ(down.elsewhere.size(), 2u);
    for (const HfBlock& slice : down.blocks) here.insert(slice.name);
    EXPECT_EQ(layout.specs[layout.params.layers[0].router].shape, Shape({3, 8}));
  }
  EXPECT_EQ(here.size(), 3u);
  for (int64_t e = 0; e < 3; ++e)
    EXPECT_EQ(here.count(fmt::format("model.layers.0.block_sparse_moe.experts.{}.w2.weight", e)), 1u);
}

TEST(Layout, GroupsAreAsTheTensorsAreCalled) {
  for (const ParamSpec& spec : make_layout(kConfig).specs)
    for (const HfBlock& block : spec.blocks) {
      const auto has = [&](const char* part) {
        return block.name.find(part) != std::string::npos;
      };
      const WeightGroup group = has("norm")            ? WeightGroup::kNorms
                                : has(".self_attn.")   ? WeightGroup::kAttention
                                : has(".experts.")     ? WeightGroup::kExperts
                                : has(".gate.")        ? WeightGroup::kRouter
                                : has("embed_tokens.") ? WeightGroup::kEmbeddings
                                                       : WeightGroup::kHead;
      EXPECT_EQ(spec.group, group) << block.name;
    }
}

TEST(Layout, TiedHeadIsTheEmbedding) {
  MixtralConfig tied = kConfig;
  tied.tie_word_embeddings = true;
  const ModelLayout layout = make_layout(tied);
  EXPECT_EQ(layout.params.lm_head, layout.params.embedding);
  for (const ParamSpec& spec : layout.specs) EXPECT_NE(spec.name, "lm_head.weight");
}

TEST(Instance, WhatAGpuCannotDoIsAnErrorThatNamesTheKey) {
  const auto refused = [](const MixtralConfig& config, const std::string& key) {
    EXPECT_NO_THROW(Instance(config, {.stack_bytes = 1 << 20})) << key;
    try {
      const Instance instance(config, {.device = {DeviceType::kMeta}});
      ADD_FAILURE() << key;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << error.what();
    }
  };
  MixtralConfig config = kConfig;
  config.num_local_experts = kMaxGpuExperts + 1;
  refused(config, "num_local_experts");
  config.num_local_experts = config.num_experts_per_tok = kMaxGpuExpertsPerToken + 1;
  refused(config, "num_experts_per_tok");
  config = kConfig;
  config.head_dim = kMaxGpuHeadDim + 2;
  refused(config, "head_dim");
}

void initialise(const MixtralConfig& config, const RandomWeights& random, State& state) {
  Stack stack("test", {}, 1);
  Ctx ctx{{}, stack, stack};
  initialise_weights(ctx, config, random, state);
}

TEST(InitialiseWeights, FillsTensorsWithTheSameBits) {
  MixtralConfig config = kConfig;
  config.vocab_size = 5000;  // tables of several blocks, and a part of one
  for (const RandomWeights& random : {RandomWeights{.seed = 42}, RandomWeights{.seed = 1, .norm_deviation = 0.3},
                                      RandomWeights{.seed = 1, .rounded_to = DType::kBF16}})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      State state(make_layout(config).specs, {}, {.weights = dtype}, State::Purpose::kInference);
      initialise(config, random, state);
      for (int p = 0; p < state.size(); ++p)
        for (const HfBlock& block : state.spec(p).blocks) {
          const int64_t first = block.elements() / 3;  // anywhere
          std::vector<float> memory(block.elements() - first);
          const Tensor values{memory.data(), {block.elements() - first}, dtype, {}};
          fill_random(config, random, block.name, block.shape(), first, values);
          const Tensor weight = state.weight(p).view({state.weight(p).elements()});
          EXPECT_EQ(
              std::memcmp(values.data, weight.slice(block.offset + first, values.elements()).data, values.bytes()), 0)
              << block.name;
        }
    }
}

TEST(InitialiseWeights, NormalInMatricesOnesInNorms) {
  MixtralConfig config = kConfig;
  config.vocab_size = 5000;
  const ModelLayout layout = make_layout(config);
  State state(layout.specs, {}, DType::kF32, State::Purpose::kInference);
  initialise(config, {.seed = 42}, state);
  EXPECT_EQ(state.weight(layout.params.final_norm).as<float>()[7], 1);
  const Tensor table = state.weight(layout.params.embedding);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < table.elements(); ++i) {
    sum += table.as<float>()[i];
    squares += std::pow(table.as<float>()[i], 2);
  }
  const auto n = static_cast<double>(table.elements());
  EXPECT_NEAR(sum / n, 0, 4 * 0.02 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.02, 4 * 0.02 / std::sqrt(2 * n));
  // Two experts, and two layers, are not alike.
  const float* gate_up = state.weight(layout.params.layers[0].gate_up).as<float>();
  EXPECT_NE(gate_up[0], gate_up[12 * 8]);
  EXPECT_NE(gate_up[0], state.weight(layout.params.layers[1].gate_up).as<float>()[0]);
}

TEST(InitialiseWeights, AreTheSameInEveryTypeThatHoldsThem) {
  constexpr RandomWeights kRandom = {.seed = 3, .norm_deviation = 0.5, .rounded_to = DType::kBF16};
  const ModelLayout layout = make_layout(kConfig);
  State wide(layout.specs, {}, DType::kF64, State::Purpose::kInference);
  initialise(kConfig, kRandom, wide);
  State narrow(layout.specs, {}, {.weights = DType::kBF16, .masters = true}, State::Purpose::kTraining);
  initialise(kConfig, kRandom, narrow);
  std::set<double> norms;
  for (int p = 0; p < wide.size(); ++p)
    for (int64_t i = 0; i < wide.weight(p).elements(); ++i) {
      const double value = wide.weight(p).as<double>()[i];
      EXPECT_EQ(to_float(narrow.weight(p).as<BF16>()[i]), value);
      EXPECT_EQ(narrow.master(p).as<float>()[i], value);
      if (p == layout.params.final_norm) norms.insert(value);
    }
  EXPECT_GT(norms.size(), 4u);
}

// The LM head, with a gradient of its own alone.
struct Head {
  static constexpr int64_t kRows = 600;  // in five chunks of logits, with kVocab
  static constexpr int64_t kVocab = 32768;

  Head(MixtralConfig config, DType gradients) : Head(make_layout(with_vocab(config)), with_vocab(config), gradients) {}
  Head(ModelLayout layout, const MixtralConfig& config, DType gradients)
      : param(layout.params.lm_head),
        state(trainable_alone(layout.specs, param), {}, {.gradients = gradients}, State::Purpose::kTraining),
        model(config, layout.params, state, *recipe, *dispatcher, {}) {
    initialise(config, {.seed = 1}, state);
    builder.begin();
    const RowRoom room = builder.room();
    room.begins[0] = 0;
    for (int32_t i = 0; i < kRows; ++i) {
      room.ids[i] = 0;
      room.targets[i] = i * 37 % kVocab;
    }
    builder.add({.tokens = kRows, .targets = kRows, .documents = 1});
  }
  static MixtralConfig with_vocab(MixtralConfig config) {
    config.vocab_size = kVocab;
    return config;
  }
  static std::vector<ParamSpec> trainable_alone(std::vector<ParamSpec> specs, int param) {
    for (ParamSpec& spec : specs) spec.trainable = &spec == &specs[param];
    return specs;
  }

  // Adds the gradient of one more micro-batch.
  Tensor add_gradient() {
    Stack stack("test", {}, size_t{64} << 20);
    Ctx ctx{{}, stack, stack};
    const Shape shape = {align_rows(kRows), kConfig.hidden_size};
    std::vector<float> h(shape.elements()), dh(shape.elements());
    for (size_t i = 0; i < h.size(); ++i) h[i] = static_cast<float>(random_normal(5, i));
    double loss = 0;
    model.head_loss(ctx, builder.finish(),
                    {.h = host_tensor(h.data(), shape),
                     .loss = host_tensor(&loss, {1}),
                     .dh = host_tensor(dh.data(), shape),
                     .scale = 0.01});
    return state.gradients().finished(ctx, param);
  }

  int param;
  State state;
  std::unique_ptr<Recipe> recipe = make_recipe();
  std::unique_ptr<Dispatcher> dispatcher = make_local_dispatcher(kConfig.num_local_experts);
  Mixtral model;
  BatchBuilder builder{{.tokens = kRows, .documents = 1}};
};

void expect_rounded(const Tensor& narrow, const Tensor& wide) {
  double squares = 0;
  for (int64_t i = 0; i < wide.elements(); ++i) {
    ASSERT_EQ(narrow.as<BF16>()[i].bits, to_bf16(wide.as<float>()[i]).bits) << i;
    squares += std::pow(wide.as<float>()[i], 2);
  }
  EXPECT_GT(squares, 0);
}

// Holds for any number of chunks, and for a sum that a micro-batch before it left.
TEST(HeadGradient, InBf16IsThatInFp32RoundedOnce) {
  MixtralConfig tied = kConfig;
  tied.tie_word_embeddings = true;
  for (const MixtralConfig& config : {kConfig, tied}) {
    Head wide(config, DType::kF32), narrow(config, DType::kBF16);
    const Tensor sum = wide.add_gradient();
    expect_rounded(narrow.add_gradient(), sum);
    for (int64_t i = 0; i < sum.elements(); ++i) sum.as<float>()[i] = to_float(to_bf16(sum.as<float>()[i]));
    wide.add_gradient();
    expect_rounded(narrow.add_gradient(), sum);
  }
}

TEST(LocalDispatcher, CombineOfDispatchWeighsTokensByTheirSlots) {
  Stack stack("test", {}, 1 << 22);
  Ctx ctx{{}, stack, stack};
  constexpr int64_t kTokens = 6, kWidth = 2;
  std::vector<int32_t> experts = {0, 1, 2, 0, 1, 2, 0, 2, 0, 1, -1, -1};
  std::vector<double> weights(12), x(kTokens * kWidth), y(kTokens * kWidth), residual(kTokens * kWidth, 1);
  for (int i = 0; i < 12; ++i) weights[i] = x[i] = i;
  const auto dispatcher = make_local_dispatcher(3);
  const Tensor chosen = host_tensor(experts.data(), {kTokens, 2});
  const Routing routing = {chosen, host_tensor(weights.data(), {kTokens, 2}), chosen};
  DispatchHandle handle = dispatcher->reserve(ctx, routing);
  dispatcher->plan(ctx, routing, handle);
  const RowGroups groups = handle.groups();
  EXPECT_EQ(groups.count[0] + groups.count[1] + groups.count[2], 10);
  EXPECT_EQ(handle.rows, 3 * kRowAlignment);

  const Tensor rows = dispatcher->dispatch(ctx, handle, host_tensor(x.data(), {kTokens, kWidth}));
  for (int64_t r = 0; r < handle.rows; ++r)
    for (int64_t i = 0; i < kWidth; ++i) rows.as<double>()[r * kWidth + i] *= handle.row_weights.as<double>()[r];
  dispatcher->combine(ctx, handle, rows, host_tensor(residual.data(), {kTokens, kWidth}),
                      host_tensor(y.data(), {kTokens, kWidth}));
  for (int64_t t = 0; t < kTokens; ++t) {
    const double weight = t == 5 ? 0 : weights[2 * t] + weights[2 * t + 1];
    for (int64_t i = t * kWidth; i < (t + 1) * kWidth; ++i) EXPECT_EQ(y[i], 1 + weight * x[i]);
  }
}

TEST(KvCache, ThatDoesNotFitIsRefusedByName) {
  const MixtralConfig config = {.num_hidden_layers = 56, .num_key_value_heads = 8, .head_dim = 128};
  const Device plan = {DeviceType::kMeta};  // of 1 PiB
  EXPECT_EQ(KvCache(config, plan, DType::kBF16, {1, 65536}).bytes(), size_t{14} << 30);
  try {
    KvCache(config, plan, DType::kBF16, {16, int64_t{1} << 30});
    ADD_FAILURE();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("out of memory: keys and values of 16 x 1073741824 tokens take "), text.npos) << text;
    EXPECT_NE(text.find("--max-length"), text.npos) << text;
  }
}

}  // namespace
}  // namespace mixtune
