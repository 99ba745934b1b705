// What is refused of an adapter's folder, by name.
#include "checkpoint/test_adapters.h"

namespace mixtune {
namespace {

class AdapterRefusals : public testing::Test {
 protected:
  void expect_refused(const std::vector<std::string>& parts, const SmallModel& base = kFixtureBase) {
    adapter_.write(folder_ / "adapter");
    expect_user_error([&] { AdapterFolder(folder_ / "adapter", base_shapes(meta_layout(base))); }, parts);
  }

  void expect_config_refused(const char* key, const nlohmann::json& value, const std::vector<std::string>& parts) {
    const nlohmann::json good = adapter_.config;
    adapter_.config[key] = value;
    std::vector<std::string> all = {"adapter/adapter_config.json: "};
    all.insert(all.end(), parts.begin(), parts.end());
    expect_refused(all);
    adapter_.config = good;
  }

  TestTensor& tensor(const std::string& name) {
    return named(adapter_.tensors, "base_model.model.model.layers." + name);
  }

  // Gives a tensor this shape, and values for it.
  void reshape(const std::string& name, Shape shape) {
    TestTensor& changed = tensor(name);
    changed.entry.shape = shape;
    changed.values.resize(static_cast<size_t>(shape.elements()));
  }

  void read_text(const std::string& text, const std::vector<std::string>& parts) {
    expect_user_error([&] { parse_adapter_config(text, "adapter_config.json"); }, parts);
  }

  TempFolder folder_;
  TestAdapter adapter_ = TestAdapter::of_fixture("hub");
};

TEST_F(AdapterRefusals, OtherKindsOfAdapter) {
  expect_config_refused("peft_type", "ADALORA", {"is an adapter of peft_type ADALORA"});
  expect_config_refused("peft_type", "PROMPT_TUNING", {"peft_type PROMPT_TUNING"});
  expect_config_refused("peft_type", nullptr, {"has no peft_type"});
  expect_config_refused("use_dora", true, {"is a DoRA adapter (use_dora)"});
  expect_config_refused("alora_invocation_tokens", {1, 2}, {"is an aLoRA adapter"});
  expect_config_refused("use_bdlora", {{"nblocks", 2}}, {"is a BD-LoRA adapter"});
  expect_config_refused("use_qalora", true, {"is a QALoRA adapter"});
  expect_config_refused("arrow_config", {{"top_k", 1}}, {"Arrow"});
  expect_config_refused("kasa_config", {{"x", 1}}, {"KaSA"});
  expect_config_refused("use_newlora", true, {"use_newlora is not known here"});
}

TEST_F(AdapterRefusals, WhatChangesMoreThanWeights) {
  expect_config_refused("lora_bias", true, {"has biases in its pairs (lora_bias)"});
  expect_config_refused("bias", "all", {"has trained biases (bias)"});
  expect_config_refused("layer_replication", {{0, 2}, {1, 2}}, {"replicates layers"});
  expect_config_refused("trainable_token_indices", {5}, {"trained rows of the embedding"});
  expect_config_refused("fan_in_fan_out", true, {"transposed"});
  for (const char* init : {"pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "newest"})
    expect_config_refused("init_lora_weights", init,
                          {fmt::format("init_lora_weights is {}", init), "a base that this changed"});
}

TEST_F(AdapterRefusals, NothingIsRefusedThatSaysNothing) {
  for (const char* key : {"use_dora", "lora_bias", "use_newlora"}) adapter_.config[key] = false;
  for (const char* key : {"modules_to_save", "layer_replication"}) adapter_.config[key] = nlohmann::json::array();
  adapter_.config["init_lora_weights"] = "gaussian";
  adapter_.config["bias"] = "none";
  adapter_.config["loftq_config"] = {{"bits", 4}};
  adapter_.write(folder_ / "adapter");
  EXPECT_NO_THROW(AdapterFolder(folder_ / "adapter", fixture_base()));
}

TEST_F(AdapterRefusals, AMalformedConfiguration) {
  for (const nlohmann::json& r : std::vector<nlohmann::json>{0, -1, 2.5, "8", 1e30, true, nlohmann::json::array()})
    expect_config_refused("r", r, {"r"});
  expect_config_refused("r", nullptr, {"has no 'r'"});
  expect_config_refused("lora_alpha", "x", {"lora_alpha has what is no number"});
  expect_config_refused("lora_alpha", nullptr, {"has no 'lora_alpha'"});
  expect_config_refused("rank_pattern", {{"q_proj", 0}}, {"rank_pattern: a rank is a whole number"});
  expect_config_refused("rank_pattern", {{"(", 1}}, {"pattern '('"});
  expect_config_refused("rank_pattern", {1}, {"rank_pattern is no object"});
  expect_config_refused("alpha_pattern", {{"q_proj", nullptr}}, {"alpha_pattern has what is no number"});
  expect_config_refused("base_model_name_or_path", 7, {"base_model_name_or_path is no text"});
  for (const char* key : {"target_parameters", "modules_to_save"})
    for (const nlohmann::json& names : std::vector<nlohmann::json>{{7}, "gate", {{"gate", true}}})
      expect_config_refused(key, names, {fmt::format("{} is no list of names", key)});
  read_text("", {"adapter_config.json"});
  read_text("[]", {"adapter_config.json"});
  read_text(std::string(100'000, '['), {"adapter_config.json"});
  read_text(R"({"r": 8, "r": 16})", {"adapter_config.json", "r"});
}

TEST_F(AdapterRefusals, WholeWeightsThatAreNotTheBases) {
  const std::string model = "base_model.model.", gate = model + "model.layers.0.mlp.gate.weight";
  const auto with = [&](const std::string& name, Shape shape, const std::vector<std::string>& parts,
                        const SmallModel& base = kFixtureBase) {
    adapter_ = TestAdapter::of_fixture("whole");
    std::erase_if(adapter_.tensors, [&](const TestTensor& tensor) { return tensor.entry.name == name; });
    adapter_.tensors.push_back({{name, DType::kF32, shape}, std::vector<float>(shape.elements())});
    expect_refused(parts, base);
  };
  with(gate, {8, 32}, {gate, "has shape [8, 32], but the base asks for [4, 32]"});
  with(model + "model.norm.weight", {32, 1}, {"model.norm.weight", "has shape [32, 1], but the base asks for [32]"});
  with(model + "model.layers.2.mlp.gate.weight", {4, 32}, {"of model.layers.2.block_sparse_moe.gate", "does not have"});
  with(model + "model.layers.0.block_sparse_moe.gate.weight", {4, 32},
       {"has model.layers.0.block_sparse_moe.gate twice"});
  for (const char* other : {"model.layers.0.self_attn.q_proj", "model.layers.0.block_sparse_moe.experts.1.w1", "score"})
    with(fmt::format("{}{}.weight", model, other), {32, 32}, {other, "is of no module"});
  with(model + "model.embed_tokens.modules_to_save.default.weight", {96, 32}, {"is a whole weight (modules_to_save)"});
}

// By whichever name it is called, and whether or not the base's head is its embedding.
TEST_F(AdapterRefusals, WholeWeightsThatAreNamedAndNotThere) {
  const auto without = [&](const std::string& weight, const char* entry, const std::string& module) {
    adapter_ = TestAdapter::of_fixture("whole");
    std::erase_if(adapter_.tensors,
                  [&](const TestTensor& tensor) { return tensor.entry.name == "base_model.model." + weight; });
    adapter_.config["modules_to_save"] = {entry};
    expect_refused({"has no " + module + ", which modules_to_save names", "get it again"});
  };
  for (const char* entry : {"gate", "mlp.gate", "block_sparse_moe.gate", "model.layers.0.mlp.gate"})
    without("model.layers.0.mlp.gate.weight", entry, "model.layers.0.block_sparse_moe.gate");
  without("lm_head.weight", "lm_head", "lm_head");
  without("model.embed_tokens.weight", "embed_tokens", "model.embed_tokens");

  adapter_ = TestAdapter::of_fixture("hub");
  adapter_.config["modules_to_save"] = {"lm_head"};
  adapter_.write(folder_ / "adapter");
  BaseShapes tied = fixture_base();
  tied.erase("lm_head.weight");
  expect_user_error([&] { AdapterFolder(folder_ / "adapter", tied); }, {"has no lm_head, which modules_to_save names"});
}

TEST_F(AdapterRefusals, NoPairOfWhatIsTargeted) {
  adapter_ = TestAdapter::of_fixture("whole");
  std::erase_if(adapter_.tensors,
                [](const TestTensor& tensor) { return tensor.entry.name.find("lora_") != tensor.entry.name.npos; });
  expect_refused({"has whole weights, and no pair of what adapter_config.json targets", "get it again"});
}

TEST_F(AdapterRefusals, AnEmbeddingOfItsOwnOfATiedBase) {
  adapter_ = TestAdapter::of_fixture("whole");
  std::erase_if(adapter_.tensors,
                [](const TestTensor& tensor) { return tensor.entry.name.ends_with("lm_head.weight"); });
  BaseShapes base = fixture_base();
  base.erase("lm_head.weight");
  adapter_.write(folder_ / "adapter");
  expect_user_error([&] { AdapterFolder(folder_ / "adapter", base); },
                    {"embed_tokens.weight' is an embedding of its own", "tie_word_embeddings"});
}

// As of a base whose vocabulary was resized.
TEST_F(AdapterRefusals, ACopyOfAnotherBasesHead) {
  adapter_ = TestAdapter::of_fixture("head");
  TestTensor& copy = named(adapter_.tensors, "base_model.model.lm_head.base_layer.weight");
  copy.entry.shape = {97, 32};
  copy.values.resize(97 * 32);
  expect_refused({"lm_head.base_layer.weight' has shape [97, 32], but the base asks for [96, 32]"});
}

// Its factors lie the other way round, and are checked as others are.
TEST_F(AdapterRefusals, APairOfAnotherBasesEmbedding) {
  const std::string start = "base_model.model.model.embed_tokens.";
  adapter_ = TestAdapter::of_fixture("embedding");
  SmallModel base = kFixtureBase;
  base.vocab = 97;
  expect_refused({"lora_embedding_A' has shape [3, 96], but the base asks for [3, 97]", "give the base"}, base);
  base = kFixtureBase;
  base.hidden = 64;
  expect_refused({"lora_embedding_B' has shape [32, 3], but the base asks for [64, 3]"}, base);
  adapter_.config["rank_pattern"] = {{"embed_tokens", 5}};
  expect_refused({"lora_embedding_B' has rank 3, but adapter_config.json says 5"});

  BaseShapes tied = fixture_base();
  tied.erase("lm_head.weight");
  adapter_ = TestAdapter::of_fixture("embedding");
  adapter_.write(folder_ / "adapter");
  expect_user_error([&] { AdapterFolder(folder_ / "adapter", tied); },
                    {"lora_embedding_B' is of the embedding, and the base's is the head too", "tie_word_embeddings"});
  std::erase_if(adapter_.tensors,
                [&](const TestTensor& tensor) { return tensor.entry.name == start + "lora_embedding_B"; });
  expect_refused({"lora_embedding_A' comes without its lora_embedding_B"});
}

TEST_F(AdapterRefusals, AFactorWithoutTheOther) {
  std::erase_if(adapter_.tensors, [](const TestTensor& t) {
    return t.entry.name.find("0.self_attn.q_proj.lora_B") != t.entry.name.npos;
  });
  expect_refused(
      {"adapter_model.safetensors: tensor 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight' comes "
       "without its lora_B"});
}

TEST_F(AdapterRefusals, AModuleTwice) {
  TestTensor again = tensor("0.block_sparse_moe.experts.1.w1.lora_A.weight");
  again.entry.name = "base_model.model.model.layers.0.mlp.experts.1.gate_proj.lora_A.weight";
  adapter_.tensors.push_back(again);
  expect_refused({"is the same factor as"});
  // Packed, and one for each expert.
  adapter_ = TestAdapter::of_fixture("hub");
  for (const TestTensor& packed : TestAdapter::of_fixture("packed").tensors)
    if (packed.entry.name.find("0.mlp") != std::string::npos) adapter_.tensors.push_back(packed);
  expect_refused({"has two pairs for model.layers.0.block_sparse_moe.experts.0.w1"});
}

TEST_F(AdapterRefusals, AnotherRankThanTheConfigurations) {
  adapter_.config["r"] = 8;
  expect_refused({"has rank 4, but adapter_config.json says 8"});
  adapter_.config["r"] = 4;
  adapter_.config["rank_pattern"] = {{"w2", 2}};
  expect_refused({"experts.0.w2.lora_A.weight' has rank 4, but adapter_config.json says 2"});
  adapter_ = TestAdapter::of_fixture("packed");
  adapter_.config["r"] = 2;
  expect_refused({"has rank 4, but adapter_config.json says 2"});
}

TEST_F(AdapterRefusals, AnotherBase) {
  SmallModel base = kFixtureBase;
  base.hidden = 64;
  expect_refused({"has shape [4, 32], but the base asks for [4, 64]", "give the base"}, base);
  base = kFixtureBase;
  base.ffn = 24;
  expect_refused({"has shape [16, 4], but the base asks for [24, 4]"}, base);
  base = kFixtureBase;
  base.experts = 3;
  expect_refused({"is of model.layers.0.block_sparse_moe.experts.3.w1, which the base does not have"}, base);
  base = kFixtureBase;
  base.layers = 1;
  expect_refused({"is of model.layers.1.", "which the base does not have"}, base);
}

TEST_F(AdapterRefusals, AnotherBaseOfPackedExperts) {
  adapter_ = TestAdapter::of_fixture("packed");
  SmallModel base = kFixtureBase;
  base.ffn = 24;
  expect_refused({"do not fit the base's experts, 32 to 48"}, base);
  base = kFixtureBase;
  base.experts = 8;
  expect_refused({"has rank 2, but adapter_config.json says 4"}, base);
  base.experts = 3;
  expect_refused({"has 16 ranks in all, for 3 experts"}, base);
}

TEST_F(AdapterRefusals, ShapesAndTypes) {
  reshape("0.self_attn.q_proj.lora_A.weight", {4, 2, 16});
  expect_refused({"has shape [4, 2, 16], not two dimensions"});
  adapter_ = TestAdapter::of_fixture("hub");
  reshape("0.self_attn.q_proj.lora_A.weight", {0, 32});
  reshape("0.self_attn.q_proj.lora_B.weight", {32, 0});
  expect_refused({"has rank 0, but adapter_config.json says 4"});
  adapter_ = TestAdapter::of_fixture("hub");
  reshape("0.self_attn.q_proj.lora_B.weight", {4, 32});
  expect_refused({"has shape [4, 32], but the base asks for [32, 4]"});
  adapter_.tensors.clear();
  expect_refused({"has no pair"});
  const std::string name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  put(folder_ / "adapter/adapter_model.safetensors",
      raw_safetensors(fmt::format(R"({{"{}":{{"dtype":"I8","shape":[4,32],"data_offsets":[0,128]}}}})", name), 128));
  expect_user_error([&] { AdapterFolder(folder_ / "adapter", fixture_base()); },
                    {"is of type I8", "F32, BF16 and F16"});
}

TEST_F(AdapterRefusals, OneWrapperOfTwo) {
  adapter_ = TestAdapter::of_fixture("one_parameter");
  adapter_.config["target_parameters"] = nullptr;
  expect_refused({"is of one packed parameter, and target_parameters does not say of which"});
}

TEST_F(AdapterRefusals, FoldersThatAreNoAdapters) {
  const auto refused = [&](const std::vector<std::string>& parts) {
    expect_user_error([&] { AdapterFolder(folder_ / "adapter", fixture_base()); }, parts);
  };
  refused({"there is no such adapter folder"});
  std::filesystem::create_directory(folder_ / "adapter");
  refused({"is no adapter's folder: it has no adapter_config.json"});
  adapter_.write(folder_ / "adapter");
  std::filesystem::remove(folder_ / "adapter/adapter_model.safetensors");
  refused({"has no adapter_model.safetensors"});
  put(folder_ / "adapter/adapter_model.bin", "");
  refused({"has its weights in adapter_model.bin, PyTorch's format", "save_pretrained"});
  std::filesystem::create_symlink(peft_fixture("hub") + "/adapter_model.safetensors",
                                  folder_ / "adapter/adapter_model.safetensors");
  refused({"leads out"});
}

}  // namespace
}  // namespace mixtune
