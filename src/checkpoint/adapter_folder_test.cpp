#include "checkpoint/adapter_folder.h"

#include "checkpoint/test_adapters.h"

namespace mixtune {
namespace {

class PeftFixture : public testing::TestWithParam<const char*> {};

TEST_P(PeftFixture, GivesTheDeltasThatPeftComputes) {
  AdapterFolder folder(peft_fixture(GetParam()), fixture_base());
  expect_deltas(folder, GetParam());
  EXPECT_EQ(folder.config().base, "tests/fixtures/hf/plain");
}

INSTANTIATE_TEST_SUITE_P(AdapterFolder, PeftFixture,
                         testing::Values("attention", "block_diagonal", "double_rank", "embedding", "gate", "head",
                                         "hub", "one_parameter", "packed", "packed_old"),
                         [](const auto& fixture) { return std::string(fixture.param); });

int64_t rank_of(const std::string& fixture, const std::string& module) {
  return AdapterFolder(peft_fixture(fixture), fixture_base()).find(module)->rank;
}

TEST(AdapterFolder, KnowsTheLayouts) {
  const auto layout = [](const char* fixture) {
    return AdapterFolder(peft_fixture(fixture), fixture_base()).layout();
  };
  EXPECT_FALSE(layout("hub").packed);
  EXPECT_TRUE(layout("packed").packed);
  EXPECT_FALSE(layout("packed").transposed);
  EXPECT_TRUE(layout("packed_old").transposed);
}

// A pair that PEFT joined to another one's has the rank that it had before.
TEST(AdapterFolder, TakesJoinedPairsApart) {
  const std::string expert = "model.layers.1.block_sparse_moe.experts.2.";
  for (const char* matrix : {"w1", "w2", "w3"}) EXPECT_EQ(rank_of("block_diagonal", expert + matrix), 4) << matrix;
  EXPECT_EQ(rank_of("double_rank", expert + "w1"), 8);
  EXPECT_EQ(rank_of("double_rank", expert + "w3"), 8);
  EXPECT_EQ(rank_of("packed", expert + "w1"), 4);
  AdapterFolder hub(peft_fixture("hub"), fixture_base()), joined(peft_fixture("block_diagonal"), fixture_base());
  for (const AdapterPair& pair : hub.pairs()) {
    const AdapterFactors a = hub.read(pair), b = joined.read(*joined.find(pair.module));
    EXPECT_TRUE(a.a == b.a && a.b == b.b) << pair.module;
  }
}

// PEFT writes the head's own weight beside its pair, and the embedding's.
TEST(AdapterFolder, TakesNoWeightFromACopyOfTheBases) {
  for (const auto& [fixture, module] : {std::pair("head", "lm_head"), {"embedding", "model.embed_tokens"}}) {
    const AdapterFolder folder(peft_fixture(fixture), fixture_base());
    const SafetensorsFile file(peft_fixture(fixture) + "/adapter_model.safetensors");
    EXPECT_NE(file.find(fmt::format("base_model.model.{}.base_layer.weight", module)), nullptr);
    EXPECT_TRUE(folder.whole().empty());
    EXPECT_EQ(folder.find(module)->rank, 3);
  }
}

TEST(AdapterFolder, GivesWhatPeftTrainedWhole) {
  AdapterFolder folder(peft_fixture("whole"), fixture_base());
  const SafetensorsFile expected(peft_fixture("whole") + "/expected.safetensors");
  EXPECT_EQ(folder.whole().size(), 2u + 1 + 1 + 5);
  EXPECT_EQ(folder.whole().size() + folder.pairs().size(), expected.tensors().size());
  for (const AdapterWhole& whole : folder.whole()) {
    const std::vector<float> want = stored_values(expected, whole.module + ".weight");
    const auto n = static_cast<int64_t>(want.size());
    EXPECT_EQ(folder.read(whole, 0, n), want) << whole.module;
    EXPECT_EQ(folder.read(whole, 5, 7), std::vector<float>(want.begin() + 5, want.begin() + 12));
    EXPECT_EQ(folder.find_whole(whole.module), &whole);
  }
  EXPECT_EQ(folder.find_whole("model.layers.0.self_attn.q_proj"), nullptr);
}

// As PEFT saves one whose target_modules is its placeholder for none.
TEST(AdapterFolder, MayHaveWholeWeightsAlone) {
  AdapterFolder folder(peft_fixture("no_pairs"), fixture_base());
  const SafetensorsFile expected(peft_fixture("no_pairs") + "/expected.safetensors");
  EXPECT_TRUE(folder.pairs().empty());
  ASSERT_EQ(folder.whole().size(), 2u + 1);
  EXPECT_EQ(expected.tensors().size(), 2u + 1);
  for (const AdapterWhole& whole : folder.whole()) {
    const std::vector<float> want = stored_values(expected, whole.module + ".weight");
    EXPECT_EQ(folder.read(whole, 0, std::ssize(want)), want) << whole.module;
  }
}

class OtherNames : public testing::Test {
 protected:
  void expect_same() {
    adapter_.write(folder_ / "adapter");
    AdapterFolder folder(folder_ / "adapter", fixture_base());
    expect_deltas(folder, "hub");
  }

  TempFolder folder_;
  TestAdapter adapter_ = TestAdapter::of_fixture("hub");
};

TEST_F(OtherNames, PrefixTwice) {
  adapter_.rename("base_model.model.", "base_model.model.base_model.model.");
  expect_same();
}

TEST_F(OtherNames, WithoutTheInnerModel) {
  adapter_.rename("base_model.model.model.", "base_model.model.");
  expect_same();
}

TEST_F(OtherNames, TheAdaptersOwnName) {
  adapter_.rename("lora_A.weight", "lora_A.default.weight");
  adapter_.rename("lora_B.weight", "lora_B.default.weight");
  expect_same();
}

TEST_F(OtherNames, OtherMatricesAndParts) {
  adapter_.rename(".w1.", ".gate_proj.");
  adapter_.rename(".w2.", ".down_proj.");
  adapter_.rename(".w3.", ".up_proj.");
  expect_same();
  adapter_.rename("block_sparse_moe", "mlp");
  expect_same();
}

// Targets may be a regular expression: the tensors say what there is.
TEST_F(OtherNames, AnExpressionOfTargets) {
  adapter_.config["target_modules"] = ".*(q_proj|w[123]|gate)$";
  expect_same();
}

TEST_F(OtherNames, NarrowTypes) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (TestTensor& tensor : adapter_.tensors) tensor.entry.dtype = dtype;
    adapter_.write(folder_ / std::string(dtype_name(dtype)));
    AdapterFolder folder(folder_ / std::string(dtype_name(dtype)), fixture_base());
    expect_deltas(folder, "hub", 0.05);
    const AdapterPair& pair = folder.pairs().front();
    const TestTensor& stored = named(adapter_.tensors, "base_model.model." + pair.module + ".lora_B.weight");
    const float want = dtype == DType::kBF16 ? to_float(to_bf16(stored.values[3])) : to_float(to_f16(stored.values[3]));
    EXPECT_EQ(folder.read(pair).b[3], want);
  }
}

// 2F is H here and F is not: down_proj says how gate_up_proj is packed. Alone, the version must.
TEST(AdapterFolder, TellsOldPackedFromNewByShapeOrVersion) {
  const TempFolder folder;
  for (const char* fixture : {"packed", "packed_old"}) {
    TestAdapter adapter = TestAdapter::of_fixture(fixture);
    adapter.config.erase("peft_version");
    adapter.write(folder / fixture);
    AdapterFolder opened(folder / fixture, fixture_base());
    expect_deltas(opened, fixture);
    std::erase_if(adapter.tensors, [](const TestTensor& tensor) {
      return tensor.entry.name.find("mlp.experts.lora_") != std::string::npos;
    });
    adapter.write(folder / "alone");
    expect_user_error([&] { AdapterFolder(folder / "alone", fixture_base()); }, {"may be packed", "peft_version"});
    for (const auto& [version, transposed] :
         {std::pair("0.19.0", true), {"0.17.1", true}, {"0.19.1", false}, {"1.0.0.dev0", false}}) {
      adapter.config["peft_version"] = version;
      adapter.write(folder / "alone");
      EXPECT_EQ(AdapterFolder(folder / "alone", fixture_base()).layout().transposed, transposed) << version;
    }
  }
}

TEST(AdapterFolder, KeepsNaN) {
  const TempFolder folder;
  TestAdapter adapter = TestAdapter::of_fixture("hub");
  adapter.tensors.front().values.front() = std::numeric_limits<float>::quiet_NaN();
  adapter.write(folder / "adapter");
  AdapterFolder opened(folder / "adapter", fixture_base());
  EXPECT_TRUE(std::isnan(opened.read(opened.pairs().front()).a.front()));
}

}  // namespace
}  // namespace mixtune
