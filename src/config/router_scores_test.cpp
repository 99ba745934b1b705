#include "config/router_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "config/load.h"
#include "config/testing.h"

namespace mixtune {
namespace {

using testing::HasSubstr;

RouterScores scores_of(const std::string& text, const RouterScores& own = {}) {
  return router_scores(parse_config(text, "run.yaml").router, own);
}

TEST(RouterScores, TheCheckpointsOwnUnlessOthersAreNamed) {
  const RouterScores sigmoid = {Scoring::kSigmoid, 2.5};
  EXPECT_EQ(scores_of("seed: 1\n"), RouterScores());
  EXPECT_EQ(scores_of("seed: 1\n", sigmoid), sigmoid);
  EXPECT_EQ(scores_of("moe_router_pre_softmax: null\nmoe_router_topk_scaling_factor: ~\n", sigmoid), sigmoid);
  EXPECT_EQ(scores_of("moe_router_topk_scaling_factor: 1\n", sigmoid), (RouterScores{Scoring::kSigmoid, 1}));
  EXPECT_EQ(scores_of("moe_router_score_function: softmax\n", sigmoid), (RouterScores{Scoring::kSoftmax, 2.5}));
  EXPECT_EQ(scores_of("moe_router_pre_softmax: true\n"), (RouterScores{Scoring::kPreSoftmax, 1}));
  EXPECT_EQ(scores_of("moe_router_pre_softmax: false\n", {Scoring::kPreSoftmax, 1}), RouterScores());
}

TEST(RouterScores, AnExpertBias) {
  const RouterScores biased = {Scoring::kSigmoid, 1, true};
  EXPECT_EQ(scores_of("moe_router_score_function: sigmoid\nmoe_router_enable_expert_bias: true\n"), biased);
  EXPECT_EQ(scores_of("seed: 1\n", biased), biased);
  EXPECT_EQ(scores_of("moe_router_enable_expert_bias: false\n", biased), (RouterScores{Scoring::kSigmoid, 1}));
  EXPECT_EQ(parse_config("seed: 1\n", "run.yaml").router.moe_router_bias_update_rate, 1e-3);
  EXPECT_THAT(error_of("moe_router_bias_update_rate: -1\n"), HasSubstr("out of range"));
  EXPECT_EQ(describe({Scoring::kSigmoid, 2.5, true}), "sigmoid with an expert bias, times 2.5");
}

// A sigmoid is of one expert by itself, so that there is nothing to do before the choice: as in Megatron-Core.
TEST(RouterScores, PreSoftmaxIsNothingToASigmoid) {
  EXPECT_EQ(scores_of("moe_router_score_function: sigmoid\nmoe_router_pre_softmax: true\n"),
            (RouterScores{Scoring::kSigmoid, 1}));
}

RouterScores sinkhorn_scores_of(const std::string& text, int64_t k, const RouterScores& own = {}) {
  return sinkhorn_scores(parse_config("moe_router_load_balancing_type: sinkhorn\n" + text, "run.yaml"), own, k);
}

TEST(RouterScores, OfSinkhornAreMegatronCores) {
  const RouterScores several = {Scoring::kPreSoftmax, 1}, one = {Scoring::kSigmoid, 1};
  EXPECT_EQ(sinkhorn_scores_of("", 2), several);
  EXPECT_EQ(sinkhorn_scores_of("", 1), one);
  EXPECT_EQ(sinkhorn_scores_of("", 2, one), several);
  EXPECT_EQ(sinkhorn_scores_of("", 1, several), one);
  EXPECT_EQ(sinkhorn_scores_of("moe_router_score_function: softmax\nmoe_router_pre_softmax: true\n", 2), several);
  EXPECT_EQ(sinkhorn_scores_of("moe_router_score_function: sigmoid\nmoe_router_pre_softmax: false\n", 1), one);
  EXPECT_EQ(sinkhorn_scores_of("moe_router_topk_scaling_factor: 1\nmoe_router_enable_expert_bias: false\n", 1,
                               {Scoring::kSigmoid, 2.5, true}),
            one);
}

TEST(RouterScores, WhatContradictsSinkhornIsRefused) {
  struct Contradiction {
    const char *text, *message;
    int64_t k = 2;
    RouterScores own = {};
  };
  for (const auto& [text, message, k, own] : std::vector<Contradiction>{
           {"moe_router_score_function: sigmoid\n",
            "run.yaml:2: moe_router_score_function: sinkhorn weighs several experts a token by a softmax; set it to "
            "softmax"},
           {"moe_router_score_function: softmax\n", "one expert a token by a sigmoid; set it to sigmoid", 1},
           {"moe_router_pre_softmax: false\n", "softmax over all experts; set it to true"},
           {"moe_router_topk_scaling_factor: 2.5\n", "is 2.5, and sinkhorn's weights are not multiplied; set it to 1"},
           {"", "is 0.5, and sinkhorn's", 2, {Scoring::kSoftmax, 0.5}},
           {"moe_router_enable_expert_bias: true\n", "a bias and sinkhorn both choose the experts"},
           {"", "moe_router_enable_expert_bias: a bias and", 1, {Scoring::kSigmoid, 1, true}},
           {"moe_router_force_load_balancing: true\n", "experts that are drawn are not chosen by sinkhorn"}}) {
    try {
      sinkhorn_scores_of(text, k, own);
      ADD_FAILURE() << text;
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr(message));
    }
  }
}

TEST(RouterScores, WhatTransformersComputes) {
  EXPECT_TRUE(is_of_transformers({}, 2, 8));
  EXPECT_TRUE(is_of_transformers({Scoring::kPreSoftmax, 1}, 4, 4));  // of which the sum is 1
  EXPECT_FALSE(is_of_transformers({Scoring::kPreSoftmax, 1}, 1, 4));
  EXPECT_FALSE(is_of_transformers({Scoring::kSoftmax, 2}, 2, 8));
  EXPECT_FALSE(is_of_transformers({Scoring::kSigmoid, 1}, 2, 8));
  EXPECT_EQ(describe({Scoring::kSigmoid, 2.5}), "sigmoid, times 2.5");
  EXPECT_EQ(describe({Scoring::kPreSoftmax, 1}), "softmax over all experts");
}

TEST(RouterScores, WhatIsWrongIsRefused) {
  EXPECT_THAT(error_of("moe_router_score_function: sigmoidal\n"),
              HasSubstr("run.yaml:1: moe_router_score_function: unknown value 'sigmoidal'; did you mean 'sigmoid'?"));
  EXPECT_THAT(error_of("moe_router_score_function: tanh\n"), HasSubstr("use one of: softmax, sigmoid"));
  EXPECT_THAT(error_of("moe_router_topk: 0\n"), HasSubstr("0 is out of range"));
  EXPECT_THAT(error_of("moe_router_topk: 1.5\n"), HasSubstr("1.5 is not a whole number"));
  for (const char* factor : {"0", "-1", "nan", "1e7"})
    EXPECT_THAT(error_of(std::string("moe_router_topk_scaling_factor: ") + factor + "\n"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("moe_router_dtype: fp64\n"), HasSubstr("unknown value 'fp64'; not supported: logits are sums"));
  EXPECT_THAT(error_of("moe_router_dtype: bf16\n"), HasSubstr("fp32"));
  for (const char* eps : {"-0.1", "1.1", "nan"})
    EXPECT_THAT(error_of(std::string("moe_input_jitter_eps: ") + eps + "\n"), HasSubstr("out of range"));
  EXPECT_THAT(error_of("moe_router_pre_softmax: 2\n"), HasSubstr("neither true nor false"));
}

}  // namespace
}  // namespace mixtune
