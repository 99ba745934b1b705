// What entries of `freeze` name, and what they may not.
#include "model/freeze.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/params.h"

namespace mixtune {
namespace {

constexpr int64_t kLayers = 12;

MixtralConfig config() {
  return {.vocab_size = 11,
          .hidden_size = 8,
          .intermediate_size = 6,
          .num_hidden_layers = kLayers,
          .num_attention_heads = 2,
          .num_key_value_heads = 1,
          .head_dim = 4,
          .num_local_experts = 4,
          .num_experts_per_tok = 2,
          .initializer_range = 0.02};
}

std::vector<ParamSpec> specs_with(std::vector<std::string> entries, const MixtralConfig& of = config()) {
  return make_layout(of, {0, of.num_local_experts}, {.entries = std::move(entries)}).specs;
}

using Rule = std::function<bool(const std::string& tensor)>;

bool has(const std::string& name, const char* part) {
  return name.find(part) != name.npos;
}

int64_t layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  return name.starts_with(kPrefix) ? std::stoll(name.substr(kPrefix.size())) : -1;
}

TEST(Freeze, NamesWeightsByWhatTheyAreAndWhereTheyStand) {
  const std::vector<std::pair<std::vector<std::string>, Rule>> cases = {
      {{"router"},
       [](const auto& name) {
         return has(name, ".gate.");
       }},
      {{"embeddings"},
       [](const auto& name) {
         return has(name, "embed_tokens");
       }},
      {{"lm_head"},
       [](const auto& name) {
         return name == "lm_head.weight";
       }},
      {{"norms"},
       [](const auto& name) {
         return has(name, "norm");
       }},
      {{"attention"},
       [](const auto& name) {
         return has(name, ".self_attn.");
       }},
      {{"experts"},
       [](const auto& name) {
         return has(name, ".experts.");
       }},
      {{"layers.3"},
       [](const auto& name) {
         return layer_of(name) == 3;
       }},
      {{"layers.1-10"},
       [](const auto& name) {
         return layer_of(name) >= 1 && layer_of(name) <= 10;
       }},
      {{"layers.0-1.router", "norms"},
       [](const auto& name) {
         return has(name, "norm") || (has(name, ".gate.") && layer_of(name) <= 1 && layer_of(name) >= 0);
       }},
      {{"model.layers.1.*"},
       [](const auto& name) {
         return layer_of(name) == 1;
       }},
      {{"*.w2.*", "lm_head.weight"},
       [](const auto& name) {
         return has(name, ".w2.") || name == "lm_head.weight";
       }},
      {{"*.w1.weight", "*experts*w3*"},
       [](const auto& name) {
         return has(name, ".w1.") || has(name, ".w3.");
       }},
      {{"*[qkv]_proj*", "*.q_proj.weight", "*k_proj*", "*v_proj.w*t"}, {}}};
  for (const auto& [entries, rule] : cases) {
    if (!rule) {  // brackets are letters
      EXPECT_THROW(specs_with(entries), UserError);
      continue;
    }
    for (const ParamSpec& spec : specs_with(entries))
      for (const HfBlock& block : spec.blocks)
        EXPECT_EQ(!spec.trainable, rule(block.name)) << entries.front() << ": " << block.name;
  }
  for (const ParamSpec& spec : specs_with({"*q_proj*", "*.k_proj.*", "*v_proj.w*t"}))
    EXPECT_EQ(spec.trainable, !has(spec.name, "qkv")) << spec.name;
}

// Every rank comes to the same, whichever experts it has.
TEST(Freeze, IsTheSameOnEveryRank) {
  const std::vector<std::string> entries = {"*.experts.*.w2.weight", "layers.2"};
  const std::vector<ParamSpec> whole = specs_with(entries);
  for (int64_t first = 0; first < 4; ++first) {
    const std::vector<ParamSpec> here = make_layout(config(), {first, 1}, {.entries = entries}).specs;
    ASSERT_EQ(here.size(), whole.size());
    for (size_t p = 0; p < here.size(); ++p) EXPECT_EQ(here[p].trainable, whole[p].trainable) << here[p].name;
    EXPECT_THROW(make_layout(config(), {first, 1}, {.entries = {"*.experts.3.*"}}), UserError);
  }
}

void expect_refused(const std::vector<std::string>& entries, const std::vector<std::string>& parts,
                    const MixtralConfig& of = config(), const Lora& lora = {}) {
  try {
    make_layout(of, {0, of.num_local_experts}, {.entries = entries, .where = "run.yaml:3: freeze"}, lora);
    ADD_FAILURE() << entries.front();
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.starts_with("run.yaml:3: freeze: ")) << text;
    for (const std::string& part : parts) EXPECT_TRUE(has(text, part.c_str())) << "no '" << part << "' in: " << text;
  }
}

TEST(Freeze, WhatNamesNothingIsRefusedWithWhatThereIs) {
  expect_refused({"router", "gates"}, {"'gates' names no weights", "attention, embeddings, experts, lm_head, norms"});
  expect_refused({"expert"}, {"'expert' names no weights", "did you mean 'experts'?"});
  expect_refused({"layers.12"}, {"'layers.12' goes beyond the model, whose layers are 0 to 11"});
  expect_refused({"layers.3-12.router"}, {"goes beyond the model"});
  for (const char* entry : {"layers.", "layers.x", "layers.-1", "layers.3-", "layers.7-2", "layers.1-2-3",
                            "layers.99999999999999999999", "layers.+1"})
    expect_refused({entry}, {entry, "is no range of layers", "layers.0-7"});
  expect_refused({"layers.1."}, {"'layers.1.' names no weights"});
  expect_refused({"layers.1.embeddings"}, {"'layers.1.embeddings' names no weights", "are in no layer"});
  expect_refused({"layers.1.routers"}, {"did you mean 'router'?"});
  expect_refused({"model.layers.3.gate.*"}, {"'model.layers.3.gate.*' matches no tensor", "model.embed_tokens.weight",
                                             "model.layers.0.self_attn.q_proj.weight"});
  expect_refused({"model.norm"}, {"'model.norm' matches no tensor"});
}

TEST(Freeze, APartOfAParameterIsRefused) {
  expect_refused({"norms", "*.q_proj.weight"},
                 {"'*.q_proj.weight' has model.layers.0.self_attn.q_proj.weight but not "
                  "model.layers.0.self_attn.v_proj.weight, and the two are one parameter here",
                  "q_proj, k_proj and v_proj of a layer"});
  expect_refused({"*.w1.*"}, {"w1 and w3 of all its experts"});
  expect_refused({"*.experts.0.*"}, {"w2 of all its experts"});
}

TEST(Freeze, SomethingIsLeftToTrain) {
  expect_refused({"*"}, {"freezes every weight: nothing is left to train"});
  expect_refused({"layers.0-11", "norms", "lm_head", "embeddings"}, {"freezes every weight"});
}

TEST(Freeze, ATiedHeadIsFrozenWithTheEmbeddings) {
  MixtralConfig tied = config();
  tied.tie_word_embeddings = true;
  expect_refused({"lm_head"}, {"'lm_head' names no weights: the head has none of its own", "freeze embeddings"}, tied);
  const std::string text = describe_trained({.entries = {"embeddings"}}, {}, tied);
  EXPECT_TRUE(has(text, "frozen: embeddings; with the embeddings the head, which is the same")) << text;
  EXPECT_FALSE(has(describe_trained({.entries = {"embeddings"}}, {}, config()), "the head"));
}

TEST(Freeze, CountsWhatIsTrainedInTheWholeModel) {
  // Of 12 layers: attention 8*8 + 2*4*8 + 8*8, two norms of 8, router 4*8, experts 4*3*6*8; two tables and a norm.
  const int64_t layer = 192 + 16 + 32 + 576, all = 12 * layer + 2 * 88 + 8;
  EXPECT_EQ(describe_trained({.entries = {"experts", "router"}}, {}, config()),
            "trained: " + std::to_string(all - 12 * 608) + " of " + std::to_string(all) +
                " parameters (26.9%); frozen: experts, router");
  EXPECT_TRUE(freezes_all({.entries = {"layers.0-5.router", "layers.6-11"}}, {}, config(), WeightGroup::kRouter));
  EXPECT_FALSE(freezes_all({.entries = {"layers.0-10.router"}}, {}, config(), WeightGroup::kRouter));
}

// 12 layers have each a pair of q, and 12 of their experts.
TEST(Freeze, CountsPairs) {
  const Lora lora = {.rank = 2, .q = true, .experts = true};
  const auto ends = [&](const std::vector<std::string>& entries, const std::string& end) {
    const std::string text = describe_trained({.entries = entries}, lora, config());
    EXPECT_TRUE(text.ends_with("; frozen: " + end)) << text;
  };
  ends({"attention"}, "attention (12 of 156 pairs)");
  ends({"layers.0-1.experts", "layers.0"}, "layers.0-1.experts, layers.0 (25 of 156 pairs)");
  ends({"*lora_A*"}, "*lora_A* (A or B alone of 156 of 156 pairs)");
  ends({"attention", "*w2.lora_A*"}, "attention, *w2.lora_A* (12 of 156 pairs, and A or B alone of 48)");
  ends({"norms"}, "norms");
  expect_refused({"attention", "experts"}, {"freezes every weight: nothing is left to train"}, config(), lora);
}

}  // namespace
}  // namespace mixtune
