#include "checkpoint/load.h"

#include <fmt/ranges.h>

#include <limits>

#include "checkpoint/index.h"
#include "checkpoint/save.h"
#include "checkpoint/test_tensors.h"
#include "kernels/testing.h"
#include "parallel/ranks.h"

namespace mixtune {
namespace {

class Load : public testing::Test {
 protected:
  Load() { fill(state_); }

  // Writes, loads into an equal model, and compares all bits.
  void expect_loads(const std::vector<TestTensor>& tensors) {
    write(tensors);
    State loaded = small_state();
    load_weights(ctx_, HfFolder(folder_.path()), loaded);
    EXPECT_EQ(difference(state_, loaded), "");
  }

  void expect_fails(const std::vector<TestTensor>& tensors, const std::vector<std::string>& fragments) {
    write(tensors);
    State loaded = small_state();
    expect_user_error([&] { load_weights(ctx_, HfFolder(folder_.path()), loaded); }, fragments);
  }

  void write(const std::vector<TestTensor>& tensors) {
    std::filesystem::remove(folder_ / kWeightsFile);
    write_tensors(folder_ / kWeightsFile, tensors);
  }

  TestCtx ctx_;
  TempFolder folder_;
  State state_ = small_state();
};

TEST_F(Load, HubLayout) {
  expect_loads(hub_form(state_));
}

TEST_F(Load, PackedLayout) {
  expect_loads(packed_form(state_));
  EXPECT_TRUE(HfFolder(folder_.path()).packed());
}

TEST_F(Load, WithoutModelPrefix) {
  for (std::vector<TestTensor> tensors : {hub_form(state_), packed_form(state_)}) {
    for (TestTensor& tensor : tensors)
      if (tensor.entry.name.starts_with("model.")) tensor.entry.name.erase(0, 6);
    expect_loads(tensors);
  }
}

TEST_F(Load, NarrowTypesAreExact) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    fill(state_, dtype);
    expect_loads(hub_form(state_, dtype));
    EXPECT_EQ(HfFolder(folder_.path()).stored_dtype(), dtype);
    EXPECT_EQ(HfFolder(folder_.path()).bytes(), static_cast<uint64_t>(state_.layout().elements()) * 2);
  }
}

TEST_F(Load, ToDouble) {
  write(hub_form(state_));
  State loaded = small_state({}, DType::kF64);
  load_weights(ctx_, HfFolder(folder_.path()), loaded);
  for (int param = 0; param < loaded.size(); ++param)
    for (int64_t i = 0; i < loaded.weight(param).elements(); ++i)
      ASSERT_EQ(loaded.weight(param).as<double>()[i], state_.weight(param).as<float>()[i]);
}

TEST_F(Load, AParameterInADTypeOfItsOwn) {
  write(hub_form(state_));
  std::vector<ParamSpec> specs = small_specs({});
  const auto narrow = std::ranges::find(specs, "model.layers.0.self_attn.o_proj.weight", &ParamSpec::name);
  narrow->dtype = DType::kBF16;
  const auto param = static_cast<int>(narrow - specs.begin());
  State loaded(specs, {}, DType::kF32, State::Purpose::kInference);
  load_weights(ctx_, HfFolder(folder_.path()), loaded);
  EXPECT_EQ(difference(loaded, state_), specs[param].name);  // and none before it
  const Tensor held = loaded.weight(param), exact = state_.weight(param);
  for (int64_t i = 0; i < held.elements(); ++i) EXPECT_EQ(held.as<BF16>()[i].bits, to_bf16(exact.as<float>()[i]).bits);
}

TEST_F(Load, RanksTogetherReadEveryByteOnce) {
  write(packed_form(state_));
  const HfFolder folder(folder_.path());
  constexpr int kRanks = 8;
  uint64_t bytes = 0;
  State together = small_state();
  for (int rank = 0; rank < kRanks; ++rank) {
    const Ranks ranks = planned_ranks({.world = kRanks, .rank = rank});  // the others are not there
    State state(small_specs({}), {}, StateTypes::all(DType::kF32), State::Purpose::kInference,
                {.dense = ranks.dense.get()});
    bytes += load_weights(ctx_, folder, state).bytes;
    for (int p = 0; p < state.size(); ++p)
      for (int64_t i = 0; i < state.weight(p).elements(); ++i)
        together.weight(p).as<float>()[i] += state.weight(p).as<float>()[i];
  }
  EXPECT_EQ(bytes, folder.bytes());
  EXPECT_EQ(difference(together, state_), "");
}

TEST_F(Load, MissingTensors) {
  for (const TestTensor& left_out : hub_form(state_)) {
    std::vector<TestTensor> tensors = hub_form(state_);
    std::erase_if(tensors, [&](const TestTensor& t) { return t.entry.name == left_out.entry.name; });
    expect_fails(tensors, {"has no tensor '" + left_out.entry.name + "'"});
  }
}

TEST_F(Load, UnexpectedTensors) {
  auto tensors = hub_form(state_);
  tensors.push_back({{"model.layers.2.input_layernorm.weight", DType::kF32, {8}}, std::vector<float>(8)});
  expect_fails(tensors, {"model.safetensors: ", "'model.layers.2.input_layernorm.weight' has no place"});
  tensors.back().entry.name = "model.layers.0.self_attn.q_proj.bias";
  expect_fails(tensors, {"'model.layers.0.self_attn.q_proj.bias' has no place"});
  tensors.back().entry.name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  expect_loads(tensors);
}

TEST_F(Load, WrongShapes) {
  auto tensors = hub_form(state_);
  named(tensors, "model.layers.1.self_attn.k_proj.weight").entry.shape = {8, 4};
  expect_fails(tensors,
               {"model.safetensors: tensor 'model.layers.1.self_attn.k_proj.weight' has shape [8, 4]", "[4, 8]"});
  tensors = packed_form(state_);
  named(tensors, "model.layers.0.mlp.experts.gate_up_proj").entry.shape = {6, 6, 8};
  expect_fails(tensors, {"gate_up_proj' has shape [6, 6, 8]", "[E, 12, 8]"});
  tensors = packed_form(state_);
  named(tensors, "model.layers.0.mlp.experts.down_proj").entry.shape = {18 * 8};
  expect_fails(tensors, {"down_proj' has shape [144]"});
}

TEST_F(Load, AnotherNumberOfExperts) {
  State more = small_state({.experts = 4});
  fill(more);
  expect_fails(hub_form(more), {"gate.weight' has shape [4, 8]"});
  auto hub = hub_form(more), packed = packed_form(more);
  for (auto* tensors : {&hub, &packed})
    for (TestTensor& tensor : *tensors)
      if (tensor.entry.name.ends_with(".gate.weight")) {
        tensor.entry.shape = {3, 8};
        tensor.values.resize(24);
      }
  expect_fails(hub, {"experts.3.w", "has no place"});
  expect_fails(packed, {"has shape [4, ", "more experts"});
  write(packed_form(state_));
  expect_user_error([&] { load_weights(ctx_, HfFolder(folder_.path()), more); }, {"has shape [3, "});
}

TEST_F(Load, WrongTypes) {
  for (const DType dtype : {DType::kF64, DType::kI64, DType::kU8}) {
    auto tensors = hub_form(state_);
    TensorEntry& norm = named(tensors, "model.norm.weight").entry;
    std::vector<TensorEntry> table;
    norm.dtype = dtype;
    for (const TestTensor& tensor : tensors) table.push_back(tensor.entry);
    std::filesystem::remove(folder_ / kWeightsFile);
    SafetensorsWriter writer(folder_ / kWeightsFile, table);
    for (size_t i = 0; i < table.size(); ++i) writer.write(i, 0, std::vector<std::byte>(table[i].bytes()));
    writer.finish();
    State loaded = small_state();
    expect_user_error([&] { load_weights(ctx_, HfFolder(folder_.path()), loaded); },
                      {"'model.norm.weight' is of type"});
  }
}

TEST_F(Load, NotFiniteValues) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    auto tensors = hub_form(state_);
    named(tensors, "model.layers.1.block_sparse_moe.experts.1.w2.weight").values[17] = bad;
    expect_fails(tensors, {"'model.layers.1.block_sparse_moe.experts.1.w2.weight' holds NaN or infinity"});
  }
}

TEST_F(Load, HeadOfTiedEmbeddings) {
  State tied = small_state({.tied = true}), loaded = small_state({.tied = true});
  fill(tied);
  auto tensors = hub_form(tied);
  tensors.push_back(tensors[0]);
  tensors.back().entry.name = "lm_head.weight";
  write(tensors);
  load_weights(ctx_, HfFolder(folder_.path()), loaded);
  EXPECT_EQ(difference(tied, loaded), "");
  tensors.back().values[3] += 1;
  write(tensors);
  expect_user_error([&] { load_weights(ctx_, HfFolder(folder_.path()), loaded); }, {"'lm_head.weight' differs"});
}

TEST_F(Load, FilesThatChangeAfterTheyWereOpened) {
  write(hub_form(state_));
  const std::string path = folder_ / kWeightsFile, good = get(path);
  for (const std::string& content : {good.substr(0, good.size() / 2), std::string(), good + "x"}) {
    put(path, good);
    const HfFolder folder(folder_.path());
    put(path, content);
    State loaded = small_state();
    try {
      load_weights(ctx_, folder, loaded);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path + ": changed while it was read"), std::string::npos)
          << error.what();
    }
  }
  put(path, good);
  const HfFolder folder(folder_.path());
  write({});  // a new file of the same name
  State loaded = small_state();
  load_weights(ctx_, folder, loaded);
  EXPECT_EQ(difference(state_, loaded), "");
}

class Sharded : public Load {
 protected:
  Sharded() {
    const auto tensors = hub_form(state_);
    const auto middle = tensors.begin() + 5;
    write_tensors(folder_ / "a.safetensors", {tensors.begin(), middle});
    write_tensors(folder_ / "b.safetensors", {middle, tensors.end()});
    for (auto tensor = tensors.begin(); tensor != tensors.end(); ++tensor)
      weight_map_[tensor->entry.name] = tensor < middle ? "a.safetensors" : "b.safetensors";
  }

  void write_index() { put(folder_ / kIndexFile, format_index(weight_map_, 1)); }
  void expect_fails(const std::vector<std::string>& fragments) {
    write_index();
    expect_user_error([&] { HfFolder{folder_.path()}; }, fragments);
  }

  WeightMap weight_map_;
};

TEST_F(Sharded, Loads) {
  write_index();
  State loaded = small_state();
  load_weights(ctx_, HfFolder(folder_.path()), loaded);
  EXPECT_EQ(difference(state_, loaded), "");
}

TEST_F(Sharded, IndexAndFilesAgree) {
  weight_map_["model.norm.weight"] = "a.safetensors";
  expect_fails({"b.safetensors: holds tensor 'model.norm.weight'", "elsewhere"});
  weight_map_["model.norm.weight"] = "b.safetensors";
  weight_map_["more"] = "b.safetensors";
  expect_fails({"b.safetensors: lacks tensor 'more'"});
  weight_map_["more"] = "c.safetensors";
  expect_fails({"c.safetensors: cannot be opened"});
  weight_map_["more"] = "../a.safetensors";
  expect_fails({kIndexFile, "'../a.safetensors'"});
}

// Does as transformers does: a tensor that the model has no place for is ignored, any other is loaded.
TEST_F(Sharded, TensorsThatTheIndexDoesNotList) {
  auto tensors = hub_form(state_);
  tensors.erase(tensors.begin(), tensors.begin() + 5);
  tensors.push_back({{"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {2}}, std::vector<float>(2)});
  tensors.push_back({{"model.layers.0.self_attn.q_proj.bias", DType::kF32, {8}}, std::vector<float>(8)});
  std::filesystem::remove(folder_ / "b.safetensors");
  write_tensors(folder_ / "b.safetensors", tensors);
  weight_map_.erase("model.norm.weight");
  write_index();
  testing::internal::CaptureStderr();
  const HfFolder folder(folder_.path());
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(
      said.find("warning: " + folder_.path().string() + ": model.safetensors.index.json does not list all tensors"),
      std::string::npos)
      << said;
  EXPECT_EQ(std::ranges::count(said, '\n'), 1);
  State loaded = small_state();
  load_weights(ctx_, folder, loaded);
  EXPECT_EQ(difference(state_, loaded), "");
  weight_map_["model.layers.0.self_attn.q_proj.bias"] = "b.safetensors";
  write_index();
  expect_user_error([&] { load_weights(ctx_, HfFolder(folder_.path()), loaded); }, {"q_proj.bias' has no place"});
}

TEST_F(Sharded, LinksToOtherPlaces) {
  const TempFolder elsewhere;
  std::filesystem::rename(folder_ / "a.safetensors", elsewhere / "0123");
  std::filesystem::create_symlink(elsewhere / "0123", folder_ / "a.safetensors");
  expect_fails({"a.safetensors: is a link that leads out of its folder"});
}

TEST(HfFolderTest, NoFolderOrNoWeights) {
  const TempFolder folder;
  expect_user_error([] { HfFolder("mistralai/Mixtral-8x7B-v0.1"); }, {"no such model folder", "hf download"});
  put(folder / "file", "");
  expect_user_error([&] { HfFolder(folder / "file"); }, {"is a file, not a model folder"});
  expect_user_error([&] { HfFolder{folder.path()}; }, {"neither model.safetensors nor"});
  put(folder / "pytorch_model.bin", "");
  expect_user_error([&] { HfFolder{folder.path()}; }, {"only PyTorch's .bin files", "save_pretrained"});
  std::filesystem::create_directory(folder / kWeightsFile);
  expect_user_error([&] { HfFolder{folder.path()}; }, {"model.safetensors: is a folder"});
}

int64_t status_bytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return -1;
}

// The most bytes of memory that loading takes above what was in use before.
TEST(LoadMemory, StaysUnderTheSizeOfTheCheckpoint) {
  const TempFolder folder;
  const SmallModel model{.layers = 2, .hidden = 512, .ffn = 1024, .experts = 8, .kv = 128, .vocab = 32000};
  {
    State state = small_state(model);
    for (int param = 0; param < state.size(); ++param)
      std::fill_n(state.weight(param).as<float>(), state.weight(param).elements(), 0.5f);
    TestCtx ctx;
    save_checkpoint(ctx, state, {.out_folder = folder / "model", .config_json = "{}", .dtype = DType::kF32});
  }
  const int64_t before = status_bytes("VmRSS:");
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM starts again
  if (status_bytes("VmHWM:") > before + (8 << 20)) GTEST_SKIP() << "VmHWM cannot be reset here";
  State state = small_state(model);
  const HfFolder source(folder / "model");
  TestCtx ctx;
  const LoadReport report = load_weights(ctx, source, state);
  EXPECT_EQ(report.bytes, source.bytes());
  EXPECT_GT(report.seconds, 0);
  const auto size = static_cast<double>(source.bytes());
  const auto peak = static_cast<double>(status_bytes("VmHWM:") - before);
  EXPECT_GT(size, 150e6);
  EXPECT_LT(peak, 1.2 * size);
  RecordProperty("peak_over_size", fmt::format("{:.3f}", peak / size));
  EXPECT_EQ(state.weight(state.size() - 1).as<float>()[0], 0.5f);
}

}  // namespace
}  // namespace mixtune
