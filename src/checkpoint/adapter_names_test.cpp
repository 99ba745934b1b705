#include "state/adapter_names.h"

#include <map>
#include <regex>

#include "checkpoint/test_model.h"

namespace mixtune {
namespace {

// The names that a program takes, as its own sources have them: a tensor of any other is refused, or ignored.
struct Taker {
  const char* program;
  const char* names;
  const char* modules;  // whole names of Mixtral's modules
};
const Taker kPeft{
    "PEFT >= 0.20 with transformers 5", R"(base_model\.model\.(.*)\.lora_[AB]\.weight)",
    R"(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|(block_sparse_moe|mlp)\.(gate|experts\.\d+\.w[123])))"};
const Taker kPeft4{"PEFT with transformers 4", R"(base_model\.model\.(.*)\.lora_[AB]\.weight)",
                   R"(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|block_sparse_moe\.(gate|experts\.\d+\.w[123])))"};
const Taker kVllm{
    "vLLM 0.33", R"(base_model\.model\.(.*)\.lora_[AB]\.weight)",
    R"(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|block_sparse_moe\.(gate|experts\.\d+\.(w[123]|(gate|down|up)_proj))))"};
const Taker kLlamaCpp{"llama.cpp", R"(base_model\.model\.(.*)\.lora_[AB]\.weight)",
                      R"(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|block_sparse_moe\.(gate|experts\.\d+\.w[123])))"};
const Taker kSglang{
    "SGLang 0.5.23", R"(base_model\.model\.(.*)\.lora_[AB]\.weight)",
    R"(model\.layers\.\d+\.(self_attn\.[qkvo]_proj|block_sparse_moe\.(gate|experts\.\d+\.(gate|down|up)_proj)))"};

bool takes(const Taker& taker, const std::string& name) {
  std::smatch match;
  return std::regex_match(name, match, std::regex(taker.names)) &&
         std::regex_match(match[1].str(), std::regex(taker.modules));
}

const std::vector<std::string> kModules = {"model.layers.0.self_attn.q_proj",
                                           "model.layers.0.self_attn.k_proj",
                                           "model.layers.0.self_attn.v_proj",
                                           "model.layers.31.self_attn.o_proj",
                                           "model.layers.31.block_sparse_moe.gate",
                                           "model.layers.31.block_sparse_moe.experts.0.w1",
                                           "model.layers.31.block_sparse_moe.experts.7.w2",
                                           "model.layers.31.block_sparse_moe.experts.7.w3"};

void expect_takes_all(const Taker& taker, AdapterNaming naming) {
  for (const std::string& module : kModules)
    for (const AdapterFactor factor : {AdapterFactor::kA, AdapterFactor::kB}) {
      const std::string name = adapter_tensor_name(module, factor, naming);
      EXPECT_TRUE(takes(taker, name)) << taker.program << ": " << name;
    }
}

// Both ways, and the gate as PEFT on transformers 5 and on 4 has it.
TEST(AdapterNames, OfWholeWeights) {
  const std::map<std::string, std::string> names = {
      {"lm_head", "lm_head"},
      {"model.embed_tokens", "model.embed_tokens"},
      {"model.norm", "model.norm"},
      {"model.layers.3.input_layernorm", "model.layers.3.input_layernorm"},
      {"model.layers.3.post_attention_layernorm", "model.layers.3.post_attention_layernorm"},
      {"model.layers.3.block_sparse_moe.gate", "model.layers.3.mlp.gate"}};
  const auto expect_module = [](const std::string& stored, const std::string& module) {
    const AdapterTensorName name = parse_adapter_name(stored, "file");
    EXPECT_EQ(name.factor, AdapterFactor::kWhole) << stored;
    EXPECT_EQ(name.module, module) << stored;
  };
  for (const auto& [module, written] : names) {
    const std::string stored = fmt::format("base_model.model.{}.weight", written);
    EXPECT_EQ(adapter_tensor_name(module, AdapterFactor::kWhole, AdapterNaming::kHub), stored);
    expect_module(stored, module);
    expect_module(fmt::format("base_model.model.{}.weight", module), module);
  }
  expect_module("base_model.model.base_model.model.norm.weight", "model.norm");
  for (const char* other : {"model.layers.03.input_layernorm", "model.layers.3.norm", "model.layers.3.self_attn.v_proj",
                            "model.layers.3.gate", "layernorm", ""}) {
    const std::string stored = fmt::format("base_model.model.{}.weight", other);
    expect_user_error([&] { parse_adapter_name(stored, "file"); }, {"file: tensor '", "is of no module"});
  }
}

TEST(AdapterNames, AreThoseThatProgramsTake) {
  for (const Taker& taker : {kPeft, kPeft4, kVllm, kLlamaCpp}) expect_takes_all(taker, AdapterNaming::kHub);
  for (const Taker& taker : {kSglang, kVllm}) expect_takes_all(taker, AdapterNaming::kSglang);
  const std::string hub = adapter_tensor_name(kModules[5], AdapterFactor::kA, AdapterNaming::kHub),
                    sglang = adapter_tensor_name(kModules[5], AdapterFactor::kA, AdapterNaming::kSglang);
  EXPECT_EQ(hub, "base_model.model.model.layers.31.block_sparse_moe.experts.0.w1.lora_A.weight");
  EXPECT_EQ(sglang, "base_model.model.model.layers.31.block_sparse_moe.experts.0.gate_proj.lora_A.weight");
  EXPECT_FALSE(takes(kSglang, hub));
  EXPECT_FALSE(takes(kPeft, sglang));
  for (const Taker& taker : {kVllm, kLlamaCpp, kSglang, kPeft4})
    EXPECT_FALSE(takes(taker, "base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight")) << taker.program;
}

TEST(AdapterNames, AreReadBack) {
  for (const AdapterNaming naming : {AdapterNaming::kHub, AdapterNaming::kSglang})
    for (const std::string& module : kModules) {
      const AdapterTensorName name = parse_adapter_name(adapter_tensor_name(module, AdapterFactor::kB, naming), "file");
      EXPECT_EQ(name.module, module);
      EXPECT_EQ(name.kind, AdapterTensorName::kModule);
      EXPECT_EQ(name.factor, AdapterFactor::kB);
    }
}

TEST(AdapterNames, OfTheHead) {
  for (const AdapterFactor factor : {AdapterFactor::kA, AdapterFactor::kB, AdapterFactor::kWhole}) {
    const AdapterTensorName name =
        parse_adapter_name(adapter_tensor_name("lm_head", factor, AdapterNaming::kHub), "file");
    EXPECT_EQ(name.module, "lm_head");
    EXPECT_EQ(name.peft, "lm_head");
    EXPECT_EQ(name.factor, factor);
  }
  EXPECT_EQ(adapter_tensor_name("lm_head", AdapterFactor::kB, AdapterNaming::kSglang),
            "base_model.model.lm_head.lora_B.weight");
  EXPECT_EQ(parse_adapter_name("base_model.model.lm_head.base_layer.weight", "file").factor, AdapterFactor::kBase);
}

// The transposes of PEFT's are what is held.
TEST(AdapterNames, OfTheEmbedding) {
  const std::string start = "base_model.model.model.embed_tokens.";
  EXPECT_EQ(adapter_tensor_name("model.embed_tokens", AdapterFactor::kA, AdapterNaming::kHub),
            start + "lora_embedding_B");
  EXPECT_EQ(adapter_tensor_name("model.embed_tokens", AdapterFactor::kB, AdapterNaming::kSglang),
            start + "lora_embedding_A");
  for (const std::string& stored : {start + "lora_embedding_B", start + "lora_embedding_B.default",
                                    std::string("base_model.model.base_model.model.embed_tokens.lora_embedding_B")}) {
    const AdapterTensorName name = parse_adapter_name(stored, "file");
    EXPECT_EQ(name.module, "model.embed_tokens");
    EXPECT_EQ(name.kind, AdapterTensorName::kModule);
    EXPECT_EQ(name.factor, AdapterFactor::kA);
    EXPECT_TRUE(is_embedding_factor(stored));
  }
  EXPECT_EQ(parse_adapter_name(start + "lora_embedding_A", "file").peft, "model.embed_tokens");
  EXPECT_EQ(parse_adapter_name(start + "base_layer.weight", "file").factor, AdapterFactor::kBase);
  EXPECT_FALSE(is_embedding_factor("base_model.model.lm_head.lora_B.weight"));
}

TEST(AdapterNames, OfPackedExperts) {
  const std::string start = "base_model.model.model.layers.3.mlp.experts.",
                    experts = "model.layers.3.block_sparse_moe.experts";
  const AdapterTensorName inner = parse_adapter_name(start + "base_layer.lora_A.weight", "file"),
                          outer = parse_adapter_name(start + "lora_B.weight", "file"),
                          router = parse_adapter_name("base_model.model.model.layers.3.mlp.gate.lora_A.weight", "file");
  EXPECT_EQ(inner.kind, AdapterTensorName::kPackedInner);
  EXPECT_EQ(outer.kind, AdapterTensorName::kPackedOuter);
  for (const AdapterTensorName& name : {inner, outer}) {
    EXPECT_EQ(name.module, experts);
    EXPECT_EQ(name.peft, "model.layers.3.mlp.experts");
  }
  EXPECT_EQ(router.module, "model.layers.3.block_sparse_moe.gate");
  EXPECT_EQ(router.peft, "model.layers.3.mlp.gate.weight");
}

TEST(AdapterNames, OthersAreRefused) {
  const std::string layer = "base_model.model.model.layers.0.";
  const std::vector<std::pair<std::string, std::string>> bad = {
      {layer + "self_attn.q_proj.lora_magnitude_vector", "is of a DoRA adapter"},
      {layer + "self_attn.q_proj.lora_B.bias", "is a bias"},
      {layer + "self_attn.q_proj.lora_E", "AdaLoRA"},
      {"base_model.model.model.embed_tokens.lora_embedding_C", "is of the embedding"},
      {"base_model.model.model.embed_tokens.lora_embedding_A.weight", "is of the embedding"},
      {"base_model.model.lm_head.lora_embedding_A", "no module"},
      {"base_model.model.lm_head.base_layer.base_layer.weight", "no module"},
      {"base_model.model.model.embed_tokens.lora_A.weight", "is of the embedding"},
      {"base_model.model.model.lm_head.lora_A.weight", "no module"},
      {"base_model.model.model.norm.base_layer.weight", "no module"},
      {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "rows of the embedding"},
      {layer + "mlp.gate_proj.lora_A.weight", "no module that mixtune knows"},
      {layer + "mlp.experts.01.w1.lora_A.weight", "no module"},
      {layer + "mlp.experts.-1.w1.lora_A.weight", "no module"},
      {layer + "mlp.experts.99999999999999999999.w1.lora_A.weight", "no module"},
      {layer + "mlp.experts.0.w4.lora_A.weight", "no module"},
      {layer + "self_attn.q_proj.lora_A.other.weight", "no module"},
      {layer + "self_attn.q_proj.lora_C.weight", "no module"},
      {"model.layers.0.self_attn.q_proj.lora_A.weight", "no module"},
      {"base_model.model.model.layers.x.self_attn.q_proj.lora_A.weight", "no module"},
      {"base_model.model.model.layers.0", "no module"},
      {"", "no module"},
      {"\x1b[2J", "\\x1b[2J"}};
  for (const auto& [name, what] : bad)
    expect_user_error([&] { parse_adapter_name(name, "a/file"); }, {"a/file: tensor '", what});
}

}  // namespace
}  // namespace mixtune
