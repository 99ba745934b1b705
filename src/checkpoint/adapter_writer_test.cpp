#include "checkpoint/adapter_writer.h"

#include "checkpoint/test_adapters.h"

namespace mixtune {
namespace {

class AdapterWriterTest : public testing::Test {
 protected:
  // The pairs of the `hub` fixture, written anew.
  void write(NewAdapter adapter) {
    adapter.base = "tests/fixtures/hf/plain";
    for (const AdapterPair& pair : source_.pairs()) adapter.modules.push_back({pair.module, pair.in, pair.out});
    write_adapter_folder(out_, adapter, [&](size_t i) { return source_.read(source_.pairs()[i]); });
  }

  nlohmann::json config() const { return nlohmann::json::parse(get(out_ + "/adapter_config.json")); }

  TempFolder folder_;
  const std::string out_ = folder_ / "out";
  AdapterFolder source_{peft_fixture("hub"), fixture_base()};
};

TEST_F(AdapterWriterTest, IsReadBackToTheBit) {
  for (const AdapterNaming naming : {AdapterNaming::kHub, AdapterNaming::kSglang}) {
    std::filesystem::remove_all(out_);
    write({.r = 4, .alpha = 8, .naming = naming});
    AdapterFolder back(out_, fixture_base());
    expect_deltas(back, "hub");
    for (const AdapterPair& pair : source_.pairs()) {
      const AdapterFactors a = source_.read(pair), b = back.read(*back.find(pair.module));
      EXPECT_TRUE(a.a == b.a && a.b == b.b) << pair.module;
    }
    EXPECT_EQ(back.config().base, "tests/fixtures/hf/plain");
  }
}

// Each key as PEFT, vLLM and llama.cpp want it, and no other tensor.
TEST_F(AdapterWriterTest, SaysWhatProgramsAskFor) {
  write({.r = 4, .alpha = 8});
  const nlohmann::json expected = {{"alpha_pattern", nlohmann::json::object()},
                                   {"base_model_name_or_path", "tests/fixtures/hf/plain"},
                                   {"bias", "none"},
                                   {"fan_in_fan_out", false},
                                   {"inference_mode", true},
                                   {"init_lora_weights", true},
                                   {"layers_pattern", nullptr},
                                   {"layers_to_transform", nullptr},
                                   {"lora_alpha", 8},
                                   {"lora_dropout", 0.0},
                                   {"modules_to_save", nullptr},
                                   {"peft_type", "LORA"},
                                   {"r", 4},
                                   {"rank_pattern", nlohmann::json::object()},
                                   {"target_modules", {"gate", "q_proj", "w1", "w2", "w3"}},
                                   {"task_type", "CAUSAL_LM"},
                                   {"use_dora", false},
                                   {"use_rslora", false}};
  EXPECT_EQ(config(), expected);
  EXPECT_TRUE(config()["lora_alpha"].is_number_integer());
  const SafetensorsFile file(out_ + "/adapter_model.safetensors");
  EXPECT_EQ(file.tensors().size(), 2 * source_.pairs().size());
  for (const auto& [name, tensor] : file.tensors()) EXPECT_EQ(tensor.dtype_text, "F32");
  EXPECT_EQ(entries(out_), (std::vector<std::string>{"adapter_config.json", "adapter_model.safetensors"}));
}

TEST_F(AdapterWriterTest, RsloraIsFoldedIntoAlpha) {
  write({.r = 4, .alpha = 8, .rslora = true});
  EXPECT_EQ(config()["use_rslora"], false);
  EXPECT_EQ(config()["lora_alpha"], 16);
  EXPECT_EQ(AdapterFolder(out_, fixture_base()).pairs().front().scaling, 8 / std::sqrt(4.0));
}

TEST_F(AdapterWriterTest, SglangsNamesAreItsTargets) {
  write({.r = 4, .alpha = 8, .naming = AdapterNaming::kSglang});
  EXPECT_EQ(config()["target_modules"],
            (std::vector<std::string>{"down_proj", "gate", "gate_proj", "q_proj", "up_proj"}));
}

TEST_F(AdapterWriterTest, NarrowTypesAreRoundedOnce) {
  write({.r = 4, .alpha = 8, .dtype = DType::kBF16});
  AdapterFolder back(out_, fixture_base());
  const AdapterPair& pair = source_.pairs().front();
  EXPECT_EQ(back.read(*back.find(pair.module)).a[5], to_float(to_bf16(source_.read(pair).a[5])));
  EXPECT_EQ(SafetensorsFile(out_ + "/adapter_model.safetensors").tensors().begin()->second.dtype_text, "BF16");
}

TEST_F(AdapterWriterTest, AFailureLeavesNothing) {
  const auto failing = [&](float bad, DType dtype) {
    NewAdapter adapter{.r = 4, .alpha = 8, .modules = {{"model.layers.0.self_attn.q_proj", 32, 32}}, .dtype = dtype};
    const std::vector<float> good(4 * 32), wrong(4 * 32, bad);
    write_adapter_folder(out_, adapter, [&](size_t) { return AdapterFactors{good, wrong}; });
  };
  for (const auto& [bad, dtype] :
       {std::pair(std::numeric_limits<float>::infinity(), DType::kF32), {70'000.0f, DType::kF16}}) {
    try {
      failing(bad, dtype);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kWentBad);
      EXPECT_NE(std::string_view(error.what()).find("model.layers.0.self_attn.q_proj"), std::string_view::npos);
    }
    EXPECT_EQ(entries(folder_.path()), std::vector<std::string>{});
  }
}

}  // namespace
}  // namespace mixtune
