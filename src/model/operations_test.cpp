// The operations of a token, against counts made by hand.
#include "model/operations.h"

#include <gtest/gtest.h>

namespace mixtune {
namespace {

constexpr double kSmallLayers = 3;

MixtralConfig small_model() {
  return {.vocab_size = 11,
          .hidden_size = 8,
          .intermediate_size = 6,
          .num_hidden_layers = 3,
          .num_attention_heads = 2,
          .num_key_value_heads = 1,
          .head_dim = 4,
          .num_local_experts = 4,
          .num_experts_per_tok = 2};
}

MixtralConfig model_8x7b() {
  return {.vocab_size = 32000,
          .hidden_size = 4096,
          .intermediate_size = 14336,
          .num_hidden_layers = 32,
          .num_attention_heads = 32,
          .num_key_value_heads = 8,
          .head_dim = 128,
          .num_local_experts = 8,
          .num_experts_per_tok = 2};
}

// The weights that a token of `small_model` meets: q (8 rows of 8), k and v (4 rows each), o; three matrices of 6 x 8
// in each of two experts; the head's 11 rows.
constexpr double kSmallAttention = 8 * 8 + 2 * 4 * 8 + 8 * 8, kSmallExperts = 2 * 3 * 6 * 8, kSmallHead = 11 * 8;
constexpr double kSmallWeights = kSmallLayers * (kSmallAttention + kSmallExperts) + kSmallHead;
// Of a pair in a layer: the products of the two heads' queries with keys, and of probabilities with values.
constexpr double kSmallPair = kSmallLayers * 2 * (2 * 4 + 2 * 4);

TEST(ModelOperations, OfATokenAndAPairByHand) {
  const ModelOperations forward = forward_operations(small_model()), training = training_operations(small_model());
  EXPECT_EQ(forward.token, 2 * kSmallWeights);
  EXPECT_EQ(forward.pair, kSmallPair);
  EXPECT_EQ(training.token, 6 * kSmallWeights);
  EXPECT_EQ(training.pair, 3 * kSmallPair);
  // Documents of 5 and 3 tokens: half of 25 and of 9 pairs.
  EXPECT_EQ(training.of(8, 34), 8 * 6 * kSmallWeights + 17 * 3 * kSmallPair);
}

TEST(ModelOperations, AFrozenWeightHasNoGradient) {
  const auto token = [](std::vector<std::string> entries, bool tied = false) {
    MixtralConfig config = small_model();
    config.tie_word_embeddings = tied;
    return training_operations(config, {.entries = std::move(entries)}).token;
  };
  EXPECT_EQ(token({"experts"}), 6 * kSmallWeights - 2 * kSmallLayers * kSmallExperts);
  EXPECT_EQ(token({"layers.1"}), 6 * kSmallWeights - 2 * (kSmallAttention + kSmallExperts));
  EXPECT_EQ(token({"lm_head"}), 6 * kSmallWeights - 2 * kSmallHead);
  EXPECT_EQ(token({"embeddings", "norms", "router"}), 6 * kSmallWeights);
  EXPECT_EQ(token({"norms"}, true), 6 * kSmallWeights);
  EXPECT_EQ(token({"embeddings"}, true), 6 * kSmallWeights - 2 * kSmallHead);
}

TEST(ModelOperations, NoTokenSeesMoreThanItsWindow) {
  MixtralConfig config = small_model();
  config.sliding_window = 2;
  const ModelOperations forward = forward_operations(config);
  EXPECT_EQ(forward.of(8, 34), 8 * 2 * kSmallWeights + 8 * 2 * kSmallPair);
  EXPECT_EQ(forward.of(4, 8), 4 * 2 * kSmallWeights + 4 * kSmallPair);
}

// Its authors say 12.9e9 active parameters: those, an embedding that is looked up, routers and norms.
TEST(ModelOperations, Of8x7B) {
  const ModelOperations forward = forward_operations(model_8x7b());
  EXPECT_EQ(forward.token / 2, 12'747'538'432);
  const double looked_up = 32000.0 * 4096, routers = 32 * 8 * 4096, norms = 65 * 4096;
  EXPECT_NEAR(forward.token / 2 + looked_up + routers + norms, 12.9e9, 0.05e9);
  // The formula of docs/design.md, section 6, of documents of 4096.
  const double h = 4096, s = 4096, ffn = 14336;
  const double formula = 6 * (32 * (h * (4096 + 2 * 1024) + 4096 * s + 4096 * h + 3 * 2 * h * ffn) + h * 32000);
  EXPECT_EQ(training_operations(model_8x7b()).of(1, s), formula);
}

// Frozen weights have two products a token in training, pairs three.
TEST(ModelOperations, OfAdapters) {
  const Lora all = {.rank = 16, .q = true, .k = true, .v = true, .out = true, .experts = true};
  const double attention = 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024)), experts = 2 * 3 * 16 * (4096 + 14336);
  EXPECT_EQ(training_operations(model_8x7b(), {}, all).token, 4 * 12'747'538'432.0 + 6 * 32 * (attention + experts));
}

}  // namespace
}  // namespace mixtune
