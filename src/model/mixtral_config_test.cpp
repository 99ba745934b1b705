#include "model/mixtral_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "base/error.h"
#include "base/temp_folder.h"

namespace mixtune {
namespace {

// A config.json that has these lines too.
std::string with(const std::string& lines) {
  return std::string(R"({"model_type": "mixtral")") + (lines.empty() ? "" : ", ") + lines + "}";
}

MixtralConfig parse(const std::string& lines) {
  return parse_mixtral_config(with(lines), "config.json");
}

void expect_bad_text(const std::string& text, const std::vector<std::string>& fragments) {
  try {
    parse_mixtral_config(text, "m/config.json");
    ADD_FAILURE() << "accepted: " << text.substr(0, 200);
  } catch (const UserError& error) {
    const std::string line = error.what();
    EXPECT_TRUE(line.starts_with("m/config.json: ")) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    for (const std::string& fragment : fragments) EXPECT_NE(line.find(fragment), std::string::npos) << line;
  }
}

void expect_bad(const std::string& lines, const std::vector<std::string>& fragments) {
  expect_bad_text(with(lines), fragments);
}

TEST(MixtralConfig, DefaultsAreTransformers) {
  const MixtralConfig c = parse("");
  EXPECT_EQ(c.vocab_size, 32000);
  EXPECT_EQ(c.hidden_size, 4096);
  EXPECT_EQ(c.intermediate_size, 14336);
  EXPECT_EQ(c.num_hidden_layers, 32);
  EXPECT_EQ(c.num_attention_heads, 32);
  EXPECT_EQ(c.num_key_value_heads, 8);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.num_local_experts, 8);
  EXPECT_EQ(c.num_experts_per_tok, 2);
  EXPECT_EQ(c.max_position_embeddings, 131072);
  EXPECT_EQ(c.sliding_window, 0);
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.initializer_range, 0.02);
  EXPECT_EQ(c.router_aux_loss_coef, 0.001);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.eos_token_ids, std::vector{2});
  EXPECT_EQ(c.pad_token_id, std::nullopt);
}

// The hub's Mixtral-8x7B, as transformers 4 wrote it.
TEST(MixtralConfig, FirstDialect) {
  const MixtralConfig c = parse_mixtral_config(R"({
    "architectures": ["MixtralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": null, "router_aux_loss_coef": 0.02,
    "sliding_window": 4096, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.36.0.dev0", "use_cache": true, "vocab_size": 32002})",
                                               "config.json");
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_EQ(c.sliding_window, 4096);
  EXPECT_EQ(c.router_aux_loss_coef, 0.02);
  EXPECT_EQ(c.vocab_size, 32002);
  EXPECT_TRUE(c.tie_word_embeddings);
}

// As transformers 5 writes it.
TEST(MixtralConfig, SecondDialect) {
  const MixtralConfig c = parse(R"("dtype": "float32", "head_dim": null, "hidden_size": 32, "num_attention_heads": 4,
    "pad_token_id": null, "router_jitter_noise": 0.0, "sliding_window": null, "num_key_value_heads": null,
    "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "transformers_version": "5.23.0", "vocab_size": 64)");
  EXPECT_EQ(c.rope_theta, 5e5);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.qkv_size(), 3 * 32);
}

TEST(MixtralConfig, DtypeOfTheWeights) {
  EXPECT_EQ(parse("").dtype, "");
  EXPECT_EQ(parse(R"("torch_dtype": "bfloat16")").dtype, "bfloat16");
  EXPECT_EQ(parse(R"("dtype": "float32", "torch_dtype": "bfloat16")").dtype, "float32");
  EXPECT_EQ(parse(R"("dtype": null, "torch_dtype": "float16")").dtype, "float16");
}

TEST(MixtralConfig, RopeDialectsTogether) {
  EXPECT_EQ(parse(R"("rope_parameters": null, "rope_theta": 7)").rope_theta, 7);
  EXPECT_EQ(parse(R"("rope_parameters": {"rope_type": "default"}, "rope_theta": 7)").rope_theta, 7);
  EXPECT_EQ(
      parse(R"("rope_parameters": {"rope_theta": 7, "partial_rotary_factor": 1.0}, "rope_theta": 7.0)").rope_theta, 7);
  EXPECT_EQ(parse(R"("rope_scaling": {"type": "default"})").rope_theta, 1e6);
  expect_bad(R"("rope_parameters": {"rope_theta": 7}, "rope_theta": 8)", {"rope_theta is said to be 7 and 8"});
}

TEST(MixtralConfig, HeadDimAndTokens) {
  const MixtralConfig c =
      parse(R"("hidden_size": 48, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 16,
    "eos_token_id": [7, 9], "bos_token_id": null, "pad_token_id": 0, "num_experts": 4)");
  EXPECT_EQ(c.query_size(), 80);
  EXPECT_EQ(c.kv_size(), 16);
  EXPECT_EQ(c.eos_token_ids, (std::vector{7, 9}));
  EXPECT_EQ(c.bos_token_id, std::nullopt);
  EXPECT_EQ(c.pad_token_id, 0);
  EXPECT_EQ(c.num_local_experts, 4);
}

// A pad token has no part in training; torch counts a negative one from the vocabulary's end.
TEST(MixtralConfig, ANegativePadTokenIsNone) {
  for (const char* none : {"-1", "-32000", "null"})
    EXPECT_EQ(parse(fmt::format(R"("pad_token_id": {})", none)).pad_token_id, std::nullopt) << none;
  EXPECT_EQ(parse(R"("pad_token_id": 31999)").pad_token_id, 31999);
  for (const char* bad : {"-32001", "32000", "-1.0", "\"-1\"", "-9223372036854775808"})
    expect_bad(fmt::format(R"("pad_token_id": {})", bad), {"pad_token_id is "});
}

TEST(MixtralConfig, WhatChangesTheMathsIsAnError) {
  for (const char* line :
       {R"("hidden_act": "gelu")", R"("attention_dropout": 0.1)", R"("router_jitter_noise": 0.01)",
        R"("attention_bias": true)", R"("mlp_bias": true)", R"("partial_rotary_factor": 0.5)",
        R"("norm_topk_prob": false)", R"("n_shared_experts": 1)", R"("final_logit_softcapping": 30.0)",
        R"("layer_types": ["sliding_attention"])", R"("per_layer_config": {})"}) {
    const std::string text = line, key = text.substr(1, text.find('"', 1) - 1);
    expect_bad(text, {key + " is ", "does not implement"});
    EXPECT_EQ(parse(fmt::format(R"("{}": null)", key)).hidden_size, 4096);
  }
  for (const char* rope : {R"({"rope_type": "linear", "factor": 2.0})", R"({"type": "yarn"})",
                           R"({"rope_type": "default", "factor": 2.0})", R"({"partial_rotary_factor": 0.5})",
                           R"({"full_attention": {"rope_theta": 1e4}})"}) {
    expect_bad(fmt::format(R"("rope_parameters": {})", rope), {"rope_parameters", "does not implement"});
    expect_bad(fmt::format(R"("rope_scaling": {})", rope), {"rope_scaling", "does not implement"});
  }
}

TEST(MixtralConfig, WeightsMayBeInBitsandbytesNf4) {
  const std::string given = R"("quantization_config": {)";
  for (const char* read :
       {R"("quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false, "bnb_4bit_quant_type": "nf4")",
        R"("load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true)"})
    EXPECT_EQ(parse(given + read + "}").hidden_size, 4096);
  EXPECT_EQ(parse(R"("quantization_config": null)").hidden_size, 4096);
  const std::vector<std::pair<std::string, std::string>> others = {
      {R"("quant_method": "gptq", "bits": 4)", R"(quant_method is "gptq")"},
      {R"("quant_method": "awq")", R"(quant_method is "awq")"},
      {R"("quant_method": ["bitsandbytes"])", "quant_method is ["},
      {R"("quant_method": "bitsandbytes", "load_in_8bit": true)", "load_in_8bit is true"},
      {R"("quant_method": "bitsandbytes")", "load_in_4bit is false"},
      {R"("load_in_4bit": true, "bnb_4bit_quant_type": "fp4")", R"(bnb_4bit_quant_type is "fp4")"},
      {R"("load_in_4bit": true)", R"(bnb_4bit_quant_type is "fp4")"}};
  for (const auto& [text, what] : others)
    expect_bad(given + text + "}", {"quantization_config: " + what, "does not read", "nf4"});
  expect_bad(R"("quantization_config": "nf4")", {"must be an object or null"});
}

TEST(MixtralConfig, OnlyMixtral) {
  expect_bad_text("{}", {"model_type is missing"});
  expect_bad_text(R"({"model_type": "llama"})", {"model_type is \"llama\""});
  expect_bad_text(R"({"model_type": ["mixtral"]})", {"model_type is"});
  expect_bad(R"("architectures": ["MixtralForSequenceClassification"])", {"architectures is", "MixtralForCausalLM"});
  expect_bad(R"("architectures": 3)", {"architectures is 3"});
  EXPECT_EQ(parse(R"("architectures": null)").hidden_size, 4096);
}

TEST(MixtralConfig, ImpossibleShapes) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "num_local_experts", "num_experts_per_tok", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "-9223372036854775808", "9223372036854775807", "18446744073709551615", "1e30",
                              "2.0", "\"8\"", "true", "[8]", "{}"})
      expect_bad(fmt::format(R"("{}": {})", key, value), {std::string(key) + " is "});
    if (std::string(key) != "num_key_value_heads")
      expect_bad(fmt::format(R"("{}": null)", key), {std::string(key) + " is null"});
  }
  expect_bad(R"("num_key_value_heads": 5)", {"num_attention_heads 32 is not a multiple of num_key_value_heads 5"});
  expect_bad(R"("hidden_size": 100)", {"hidden_size 100 is not a multiple of num_attention_heads 32"});
  expect_bad(R"("head_dim": 7)", {"head_dim is 7", "even"});
  expect_bad(R"("head_dim": 0)", {"head_dim is 0"});
  expect_bad(R"("hidden_size": 32)", {"head_dim is 1", "even"});
  expect_bad(R"("num_experts_per_tok": 9)", {"num_experts_per_tok is 9", "8 experts"});
  expect_bad(R"("num_experts": 4, "num_local_experts": 8)", {"differ"});
  expect_bad(R"("sliding_window": 0)", {"sliding_window is 0"});
  expect_bad(R"("intermediate_size": 16777216, "hidden_size": 16777216, "num_hidden_layers": 8192)", {"parameters"});
  expect_bad(R"("num_hidden_layers": 65536, "num_local_experts": 65536, "hidden_size": 2, "intermediate_size": 1,
                 "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 4)",
             {"65536 layers of 65536 experts"});
  expect_bad(R"("num_hidden_layers": 65536, "num_local_experts": 3)", {"65536 layers of 3 experts"});
  expect_bad(R"("num_attention_heads": 65536, "head_dim": 65536, "hidden_size": 16777216)", {"parameters"});
  expect_bad(R"("vocab_size": 2147483647, "hidden_size": 16777216)", {"parameters"});
  expect_bad(R"("eos_token_id": 32000)", {"eos_token_id is 32000"});
  expect_bad(R"("bos_token_id": -1)", {"bos_token_id is -1"});
  expect_bad(R"("eos_token_id": ["2"])", {"eos_token_id"});
  expect_bad(R"("eos_token_id": [2, 32000])", {"eos_token_id is 32000"});
  EXPECT_TRUE(parse(R"("eos_token_id": null)").eos_token_ids.empty());
  EXPECT_TRUE(parse(R"("eos_token_id": [])").eos_token_ids.empty());
}

TEST(MixtralConfig, RouterScores) {
  EXPECT_EQ(parse(R"("vocab_size": 4)").router_scores, RouterScores());
  EXPECT_EQ(parse(R"("moe_router_score_function": "sigmoid", "moe_router_topk_scaling_factor": 2.5)").router_scores,
            (RouterScores{Scoring::kSigmoid, 2.5}));
  EXPECT_EQ(parse(R"("moe_router_pre_softmax": true, "moe_router_score_function": "softmax")").router_scores,
            (RouterScores{Scoring::kPreSoftmax, 1}));
  expect_bad(R"("moe_router_score_function": "tanh")",
             {"moe_router_score_function is \"tanh\", but must be softmax or sigmoid"});
  expect_bad(R"("moe_router_score_function": ["sigmoid"])", {"must be softmax or sigmoid"});
  expect_bad(R"("moe_router_pre_softmax": 1)", {"must be true or false"});
  for (const char* factor : {"0", "-1", "1e9", "\"2\""})
    expect_bad(std::string(R"("moe_router_topk_scaling_factor": )") + factor, {"moe_router_topk_scaling_factor is "});
}

TEST(MixtralConfig, ExpertBias) {
  const std::string shape = R"("num_hidden_layers": 2, "num_local_experts": 3, )",
                    bias = R"("moe_router_expert_bias": )", sigmoid = R"("moe_router_score_function": "sigmoid", )";
  const MixtralConfig config = parse(shape + sigmoid + bias + "[[0, 0.0010000000474974513, -1], [1e-3, 2, 3]]");
  EXPECT_EQ(config.expert_bias, (std::vector<float>{0, 1e-3F, -1, 1e-3F, 2, 3}));
  EXPECT_EQ(config.router_scores, (RouterScores{Scoring::kSigmoid, 1, true}));
  for (const std::string& none : {shape + sigmoid + bias + "null", shape + sigmoid + R"("hidden_act": "silu")"}) {
    EXPECT_TRUE(parse(none).expert_bias.empty());
    EXPECT_FALSE(parse(none).router_scores.expert_bias);
  }
  expect_bad(shape + bias + "[[1, 2, 3], [1, 2, 3]]", {"moe_router_score_function is not sigmoid"});
  expect_bad(shape + sigmoid + bias + "3", {"must be 2 lists, one for each layer"});
  expect_bad(shape + sigmoid + bias + "[[1, 2, 3]]", {"must be 2 lists"});
  expect_bad(shape + sigmoid + bias + "[[1, 2, 3], [1, 2]]", {"must have 3 numbers"});
  expect_bad(shape + sigmoid + bias + "[[1, 2, 3], {}]", {"must have 3 numbers"});
  for (const char* number : {"null", "\"1\"", "1e7", "-1e300", "[1]"})
    expect_bad(shape + sigmoid + bias + "[[1, 2, 3], [1, 2, " + number + "]]", {"must have numbers between"});
}

TEST(MixtralConfig, AbsurdNumbers) {
  for (const char* line :
       {R"("rope_theta": 0)", R"("rope_theta": -1e6)", R"("rope_theta": 1e300)", R"("rope_theta": null)",
        R"("rope_theta": "1e6")", R"("rms_norm_eps": 0)", R"("rms_norm_eps": 2)", R"("rms_norm_eps": -1e-5)",
        R"("rms_norm_eps": true)", R"("initializer_range": -1)", R"("router_aux_loss_coef": -0.1)",
        R"("router_aux_loss_coef": 1e9)", R"("tie_word_embeddings": 1)", R"("rope_parameters": {"rope_theta": -1})",
        R"("rope_parameters": 3)"})
    expect_bad(line, {" is "});
  expect_bad(R"("rms_norm_eps": NaN)", {"not valid JSON at byte"});
  expect_bad(R"("rms_norm_eps": 1e999)", {"not valid JSON at byte", "number overflow"});
}

TEST(MixtralConfig, MalformedText) {
  for (const char* text :
       {"", "[]", "3", "null", "\"mixtral\"", "{", R"({"model_type": "mixtral"} x)", "{\"\xff\": 1}"})
    expect_bad_text(text, {});
  expect_bad(R"("hidden_size": 64, "hidden_size": 64)", {"'hidden_size' stands twice"});
  expect_bad(R"("a": {"b": 1, "c": {"b": 2}, "b": 1})", {"'b' stands twice"});
  EXPECT_EQ(parse(R"("a": {"b": 1, "c": {"b": 2}}, "d": {"b": 1})").hidden_size, 4096);
  expect_bad(R"("a": )" + std::string(100'000, '['), {"deeper than 16"});
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  expect_bad_text(objects, {"deeper than 16"});
}

TEST(MixtralConfig, UnknownKeysAreNamedOnce) {
  testing::internal::CaptureStderr();
  parse(R"("use_cache": true, "id2label": {"0": "A"}, "hidden_act": "silu", "rope_theta": 1e6)");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  parse(R"("zeta": 1, "al\npha": {"b": []}, "use_cache": true)");
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "mixtune: warning: config.json: keys that mixtune does not know are ignored: al\\x0apha, zeta\n");
}

TEST(MixtralConfig, LoadsFromAFolder) {
  namespace fs = std::filesystem;
  const TempFolder temporary;
  const std::string folder = temporary.path();
  EXPECT_THROW(load_mixtral_config(folder + "/none"), UserError);
  EXPECT_THROW(load_mixtral_config(folder), UserError);  // no config.json
  const std::string path = folder + "/config.json";
  std::ofstream(path) << with(R"("vocab_size": 77)");
  EXPECT_EQ(load_mixtral_config(folder).vocab_size, 77);
  EXPECT_THROW(load_mixtral_config(path), UserError);  // a file
  std::ofstream(path) << std::string(2 << 20, ' ');
  EXPECT_THROW(load_mixtral_config(folder), UserError);
  fs::remove(path);
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THROW(load_mixtral_config(folder), UserError);
  fs::remove(path);
  fs::create_directory(path);
  EXPECT_THROW(load_mixtral_config(folder), UserError);
  fs::remove(path);
  const TempFolder elsewhere;
  std::ofstream(elsewhere / "file") << with("");
  fs::create_symlink(elsewhere / "file", path);
  EXPECT_THROW(load_mixtral_config(folder), UserError);
}

}  // namespace
}  // namespace mixtune
