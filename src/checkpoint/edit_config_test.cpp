#include "checkpoint/edit_config.h"

#include <gtest/gtest.h>

#include <bit>
#include <string>

#include "base/json_value.h"

namespace mixtune {
namespace {

TEST(WithDtype, ChangesOnlyTheValue) {
  EXPECT_EQ(with_dtype(R"({"dtype":"float32","x":"dtype"})", DType::kBF16), R"({"dtype":"bfloat16","x":"dtype"})");
  EXPECT_EQ(with_dtype(R"({"a":["dtype","b"],"torch_dtype" :  "float16"})", DType::kF32),
            R"({"a":["dtype","b"],"torch_dtype" :  "float32"})");
  EXPECT_EQ(with_dtype(R"({"dtype": null, "a": 1})", DType::kBF16), R"({"dtype": "bfloat16", "a": 1})");
  EXPECT_EQ(with_dtype(R"({"torch_dtype":null})", DType::kF16), R"({"torch_dtype":"float16"})");
  EXPECT_EQ(with_dtype("{\"dtype\": \"float32\", \"torch_dtype\": \"float32\"}", DType::kBF16),
            "{\"dtype\": \"bfloat16\", \"torch_dtype\": \"bfloat16\"}");
  EXPECT_EQ(with_dtype(R"({"a": "\\", "dtype": "bfloat16"})", DType::kBF16), R"({"a": "\\", "dtype": "bfloat16"})");
}

TEST(WithDtype, AddsTheKeyThatIsMissing) {
  EXPECT_EQ(with_dtype("{\n  \"a\": {\"dtype\": \"float32\"},\n  \"b\": 1\n}\n", DType::kBF16),
            "{\n  \"torch_dtype\": \"bfloat16\",\n  \"a\": {\"dtype\": \"float32\"},\n  \"b\": 1\n}\n");
  EXPECT_EQ(with_dtype(R"({"x\"dtype": "float32"})", DType::kF16),
            R"({"torch_dtype": "float16","x\"dtype": "float32"})");
  EXPECT_EQ(with_dtype("{}", DType::kBF16), R"({"torch_dtype": "bfloat16"})");
  EXPECT_EQ(with_dtype(" { } ", DType::kBF16), R"( { "torch_dtype": "bfloat16"} )");
}

TEST(WithDtype, AddsItInTheConfigsDialect) {
  for (const char* fifth :
       {R"("transformers_version": "5.24.0")", R"("transformers_version": "10.0.0")", R"("rope_parameters": null)"})
    EXPECT_EQ(with_dtype(std::string("{") + fifth + "}", DType::kBF16),
              std::string(R"({"dtype": "bfloat16",)") + fifth + "}");
  for (const char* fourth : {R"("transformers_version": "4.36.0.dev0")", R"("transformers_version": null)",
                             R"("transformers_version": "4.57.1", "rope_parameters": {})", R"("rope_theta": 1e6)"})
    EXPECT_EQ(with_dtype(std::string("{") + fourth + "}", DType::kBF16),
              std::string(R"({"torch_dtype": "bfloat16",)") + fourth + "}");
}

// transformers takes a model without a type to be fp32.
TEST(WithDtype, Fp32NeedsNoKey) {
  for (const char* same : {R"({})", R"({"a": {"dtype": "bfloat16"}})", R"({"rope_parameters": {}})"})
    EXPECT_EQ(with_dtype(same, DType::kF32), same);
}

TEST(WithVocabSize, ChangesOnlyTheValue) {
  EXPECT_EQ(with_vocab_size("{\n  \"a\": {\"vocab_size\": 1},\n  \"vocab_size\": 32000,\n  \"b\": 1\n}\n", 32002),
            "{\n  \"a\": {\"vocab_size\": 1},\n  \"vocab_size\": 32002,\n  \"b\": 1\n}\n");
  EXPECT_EQ(with_vocab_size(R"({"vocab_size":7})", 12), R"({"vocab_size":12})");
}

TEST(WithVocabSize, AddsTheKeyThatIsMissing) {
  EXPECT_EQ(with_vocab_size("{\n  \"a\": 1\n}\n", 32002), "{\n  \"vocab_size\": 32002,\n  \"a\": 1\n}\n");
  EXPECT_EQ(with_vocab_size("{}", 32002), R"({"vocab_size": 32002})");
}

TEST(WithExpertsPerToken, SetsOrAddsThem) {
  EXPECT_EQ(with_experts_per_token(R"({"num_experts_per_tok": 2, "a": 1})", 3),
            R"({"num_experts_per_tok": 3, "a": 1})");
  EXPECT_EQ(with_experts_per_token("{}", 1), R"({"num_experts_per_tok": 1})");
}

TEST(WithRouterScores, SaysNothingOfMixtralsOwn) {
  for (const char* same : {"{}", R"({"a": {"moe_router_score_function": "sigmoid"}})"})
    EXPECT_EQ(with_router_scores(same, {}), same);
  EXPECT_EQ(with_router_scores(R"({"moe_router_score_function": "sigmoid", "moe_router_topk_scaling_factor":2.5})", {}),
            R"({"moe_router_score_function": "softmax", "moe_router_topk_scaling_factor":1})");
}

TEST(WithRouterScores, SaysOthers) {
  EXPECT_EQ(with_router_scores(R"({"a": 1})", {Scoring::kPreSoftmax, 1}), R"({"moe_router_pre_softmax": true,"a": 1})");
  const std::string sigmoid = with_router_scores("{\n  \"a\": 1\n}\n", {Scoring::kSigmoid, 0.1});
  EXPECT_EQ(sigmoid,
            "{\n  \"moe_router_topk_scaling_factor\": 0.1,\n  \"moe_router_score_function\": \"sigmoid\",\n  \"a\": "
            "1\n}\n");
  EXPECT_EQ(with_router_scores(sigmoid, {Scoring::kSigmoid, 0.1}), sigmoid);
}

TEST(WithoutQuantisation, TakesTheMemberOut) {
  const std::string member = R"("quantization_config" : {"a": [1, {"b": "}"}], "quantization_config": 2})";
  EXPECT_EQ(without_quantisation("{\"x\": 1,\n  " + member + ",\n  \"y\": 2\n}"), "{\"x\": 1,\n  \"y\": 2\n}");
  EXPECT_EQ(without_quantisation("{\"x\": 1,\n  " + member + "\n}\n"), "{\"x\": 1\n}\n");
  EXPECT_EQ(without_quantisation("{" + member + "}"), "{}");
  EXPECT_EQ(without_quantisation("{" + member + ", \"y\": 2}"), "{\"y\": 2}");
  for (const char* same : {"{}", R"({"a": {"quantization_config": {}}})", R"({"a": "quantization_config"})"})
    EXPECT_EQ(without_quantisation(same), same);
}

// A file that is refused later is no reason to read past its end.
TEST(WithoutQuantisation, BearsAnyText) {
  for (const char* text : {"", "{", R"({"quantization_config")", R"({"quantization_config":)",
                           R"({"quantization_config": {"a": ")", R"({"quantization_config": [)"})
    EXPECT_LE(without_quantisation(text).size(), std::string(text).size());
}

TEST(WithExpertBias, IsExactAndInThePlaceOfTheOld) {
  const float bias[] = {0, 0.001F, -0.1F, 1};
  const std::string text = with_expert_bias("{\n  \"a\": 1\n}\n", bias, 2);
  EXPECT_EQ(
      text,
      "{\n  \"moe_router_expert_bias\": [[0, 0.0010000000474974513], [-0.10000000149011612, 1]],\n  \"a\": 1\n}\n");
  EXPECT_EQ(with_expert_bias(text, bias, 2), text);
  const float other[] = {1, 2, 3, 4};
  EXPECT_EQ(with_expert_bias(text, other, 2), "{\n  \"moe_router_expert_bias\": [[1, 2], [3, 4]],\n  \"a\": 1\n}\n");
  EXPECT_EQ(with_expert_bias(text, {}, 2), "{\n  \"moe_router_expert_bias\": null,\n  \"a\": 1\n}\n");
  EXPECT_EQ(with_expert_bias(R"({"a": "]"})", {}, 2), R"({"a": "]"})");
  EXPECT_EQ(with_expert_bias(R"({"moe_router_expert_bias": ["]", {"b": [1]}], "c": 2})", {}, 2),
            R"({"moe_router_expert_bias": null, "c": 2})");
}

// Every bit comes back as JSON reads it.
TEST(WithExpertBias, ComesBack) {
  for (uint32_t bits = 1; bits < 0x49000000; bits = bits * 3 + 0x1234567) {
    const float number[] = {std::bit_cast<float>(bits)};
    const auto read = nlohmann::json::parse(with_expert_bias("{}", number, 1));
    EXPECT_EQ(read["moe_router_expert_bias"][0][0].get<float>(), number[0]);
  }
}

TEST(WithArchitectures, AddsThemWhereTheyAreMissing) {
  EXPECT_EQ(with_architectures("{\n  \"a\": 1\n}\n"),
            "{\n  \"architectures\": [\"MixtralForCausalLM\"],\n  \"a\": 1\n}\n");
  const std::string same = "{\"a\": 1, \"architectures\": [\"MixtralForCausalLM\"]}";
  EXPECT_EQ(with_architectures(same), same);
}

}  // namespace
}  // namespace mixtune
