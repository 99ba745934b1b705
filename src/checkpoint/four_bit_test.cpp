// Folders in bitsandbytes' NF4: scripts/make_nf4_fixtures.py made one, and says with bitsandbytes what it holds.
#include "checkpoint/four_bit.h"

#include <array>
#include <limits>
#include <map>

#include "base/test_paths.h"
#include "checkpoint/compare_models.h"
#include "checkpoint/export_model.h"
#include "checkpoint/index.h"
#include "checkpoint/load.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/stream_weights.h"
#include "checkpoint/test_tensors.h"
#include "kernels/eight_bit/quantise.h"
#include "kernels/testing.h"
#include "parallel/ranks.h"

namespace mixtune {
namespace {

constexpr SmallModel kModel = {.layers = 1, .hidden = 64, .ffn = 32, .experts = 2, .kv = 16, .vocab = 24};
const std::string kFixture = source_path("tests/fixtures/nf4");
const std::string kQ = "model.layers.0.self_attn.q_proj.weight", kK = "model.layers.0.self_attn.k_proj.weight",
                  kNf4 = ".quant_state.bitsandbytes__nf4";

std::string bytes_of_tensor(const SafetensorsFile& file, const StoredTensor& tensor) {
  return file.file().read(tensor.begin, tensor.bytes());
}

// A tensor of a file as it lies there.
struct RawTensor {
  std::string dtype, shape, bytes;
};
using RawTensors = std::map<std::string, RawTensor>;

RawTensors fixture_tensors() {
  const SafetensorsFile file(kFixture + "/" + kWeightsFile);
  RawTensors tensors;
  for (const auto& [name, tensor] : file.tensors())
    tensors[name] = {tensor.dtype_text, tensor.shape.str(), bytes_of_tensor(file, tensor)};
  return tensors;
}

void write_raw(const std::string& path, const RawTensors& tensors) {
  std::string header, bytes;
  for (const auto& [name, tensor] : tensors) {
    header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", header.empty() ? "{" : ",",
                          name, tensor.dtype, tensor.shape, bytes.size(), bytes.size() + tensor.bytes.size());
    bytes += tensor.bytes;
  }
  put(path, raw_safetensors(header + "}", 0) + bytes);
}

// What bitsandbytes makes of the fixture's tensors, and the type; the others as they are.
State expected_state() {
  State state(small_specs(kModel), {}, DType::kF32, State::Purpose::kInference);
  const SafetensorsFile model(kFixture + "/" + kWeightsFile), expected(kFixture + "/expected.safetensors");
  for (int param = 0; param < state.size(); ++param)
    for (const HfBlock& block : state.spec(param).blocks) {
      const std::vector<float> values = stored_values(expected.find(block.name) ? expected : model, block.name);
      std::ranges::copy(values, state.weight(param).as<float>() + block.offset);
    }
  return state;
}

class FourBit : public testing::Test {
 protected:
  FourBit() { put(folder_ / "config.json", get(kFixture + "/config.json")); }

  State load(const std::string& path) {
    State state(small_specs(kModel), {}, DType::kF32, State::Purpose::kInference);
    load_weights(ctx_, HfFolder(path), state);
    return state;
  }

  // Expects that a folder with these tensors is refused so.
  void expect_refused(const RawTensors& tensors, const std::vector<std::string>& fragments) {
    write_raw(folder_ / kWeightsFile, tensors);
    expect_user_error([&] { load(folder_.path()); }, fragments);
  }

  TestCtx ctx_;
  TempFolder folder_;
};

TEST_F(FourBit, ValuesAreBitsandbytesOwn) {
  const HfFolder folder(kFixture);
  const SafetensorsFile expected(kFixture + "/expected.safetensors");
  int64_t seen = 0;
  for (const auto& [name, tensor] : folder.files()[0].tensors()) {
    if (!tensor.four_bit) continue;
    ++seen;
    const StoredTensor& wanted = *expected.find(name);
    EXPECT_EQ(tensor.shape, wanted.shape) << name;
    EXPECT_EQ(tensor.dtype, wanted.dtype) << name;
    const std::string all = bytes_of_tensor(expected, wanted);
    const StoredValues from = folder.stored({.name = name, .box = Box(tensor.shape)});
    const int64_t n = tensor.shape.elements();
    const auto size = static_cast<int64_t>(dtype_size(*tensor.dtype));
    std::vector<std::byte> buffer;
    const auto expect_range = [&](int64_t place, int64_t count) {
      const FileStretch stretch = from.stretch(place, count);
      const std::string bytes = stretch.file->read(stretch.begin, stretch.end - stretch.begin);
      const auto values = from.values(place, count, std::as_bytes(std::span(bytes)), buffer);
      ASSERT_TRUE(std::string(reinterpret_cast<const char*>(values.data()), values.size()) ==
                  all.substr(place * size, count * size))
          << name << " " << place << " " << count;
    };
    expect_range(0, n);
    for (const int64_t place : {0, 1, 31, 63, 64, 65, 127, 128})
      for (const int64_t count : {1, 2, 63, 64, 65, 200})
        if (place + count <= n) expect_range(place, count);
    if (n > 64) expect_range(n - 1, 1);
  }
  EXPECT_EQ(seen, 11);
}

TEST_F(FourBit, LoadsIntoEveryType) {
  const State expected = expected_state();
  EXPECT_EQ(difference(load(kFixture), expected), "");
  State bf16(small_specs(kModel), {}, kBf16State, State::Purpose::kInference);
  load_weights(ctx_, HfFolder(kFixture), bf16);
  for (int param = 0; param < bf16.size(); ++param)
    for (int64_t i = 0; i < bf16.weight(param).elements(); ++i)
      ASSERT_EQ(bf16.weight(param).as<BF16>()[i].bits, to_bf16(expected.weight(param).as<float>()[i]).bits);
}

// The projections of the fixture, held as codes: what these stand for, by the tensors' names.
std::map<std::string, std::vector<float>> held_values(Ctx& ctx, BasePrecision base) {
  std::vector<ParamSpec> specs = small_specs(kModel);
  for (ParamSpec& spec : specs)
    if (spec.name.ends_with("qkv") || spec.name.ends_with("_proj.weight") || spec.name.ends_with(".gate_up") ||
        spec.name.ends_with(".down"))
      spec.held_in = base, spec.trainable = false;
  State state(std::move(specs), {}, DType::kF32, State::Purpose::kInference);
  load_weights(ctx, HfFolder(kFixture), state);
  std::map<std::string, std::vector<float>> values;
  for (int param = 0; param < state.size(); ++param) {
    if (!state.is_coded(param)) continue;
    const WeightUse weight(ctx, state, param);
    for (const HfBlock& block : state.spec(param).blocks) {
      const float* begin = (*weight).as<float>() + block.offset;
      values[block.name] = {begin, begin + block.elements()};
    }
  }
  EXPECT_EQ(values.size(), 10u);
  return values;
}

TEST_F(FourBit, CodesOfTheSameKindAreHeldAsTheyAre) {
  const SafetensorsFile expected(kFixture + "/expected.safetensors");
  const HfFolder folder(kFixture);
  int same = 0;
  for (const auto& [name, values] : held_values(ctx_, BasePrecision::kNf4)) {
    const StoredTensor& tensor = *folder.files()[0].find(name);
    if (!tensor.four_bit || !tensor.four_bit->is_of(kNf4Block, DType::kBF16)) continue;
    EXPECT_EQ(values, stored_values(expected, name)) << name;
    ++same;
  }
  EXPECT_GT(same, 0);
}

TEST_F(FourBit, InEightBitsIsHeldWhatTheCodesStandFor) {
  const SafetensorsFile model(kFixture + "/" + kWeightsFile), expected(kFixture + "/expected.safetensors");
  for (const auto& [name, values] : held_values(ctx_, BasePrecision::kFp8)) {
    std::vector<float> wanted = stored_values(expected.find(name) ? expected : model, name);
    const Tensor matrix = host_tensor(wanted.data(), (expected.find(name) ? expected : model).find(name)->shape);
    const EightBits bits = {.blocks = {kScaleBlock, kScaleBlock}, .scale = ScaleRule::kPowerOfTwo};
    round_operand(ctx_, {.x = matrix, .y = matrix, .bits = bits, .live = matrix.rows()});
    EXPECT_EQ(values, wanted) << name;
  }
}

// Pieces of ranks begin and end within blocks.
TEST_F(FourBit, RanksTogetherReadEverything) {
  const State expected = expected_state();
  constexpr int kRanks = 3;
  int64_t read = 0;
  for (int rank = 0; rank < kRanks; ++rank) {
    const Ranks ranks = planned_ranks({.world = kRanks, .rank = rank});  // the others are not there
    State state(small_specs(kModel), {}, {}, State::Purpose::kTraining,
                {.dense = ranks.dense.get(), .shard_optimizer = true});
    stream_weights(ctx_, HfFolder(kFixture), state);
    for (int param = 0; param < state.size(); ++param) {
      const ParamLayout::Piece counted = state.layout().counted(param);
      const float *is = state.weight(param).as<float>(), *wanted = expected.weight(param).as<float>();
      for (int64_t i = counted.begin; i < counted.begin + counted.count; ++i) ASSERT_EQ(is[i], wanted[i]);
      read += counted.count;
    }
  }
  EXPECT_EQ(read, expected.layout().elements());
}

TEST_F(FourBit, ReadsABoxOfATensor) {
  const State expected = expected_state();
  const std::string name = "model.layers.0.block_sparse_moe.experts.1.w3.weight";
  const SafetensorsFile file(kFixture + "/expected.safetensors");
  const std::vector<float> values = stored_values(file, name);
  const Box whole({32, 64});
  for (const Box& box : {whole.cut(0, 3, 2), whole.cut(1, 3, 5), whole.cut(0, 31, 1).cut(1, 63, 1)}) {
    State state({{"part", box.shape(), {{name, box}}}}, {}, DType::kF32, State::Purpose::kInference);
    stream_weights(ctx_, HfFolder(kFixture), state);
    for (int64_t i = 0; i < box.elements(); ++i) EXPECT_EQ(state.weight(0).as<float>()[i], values[box.place(i)]);
  }
}

// The parts of a tensor may lie in different files.
TEST_F(FourBit, LoadsFromShards) {
  std::array<RawTensors, 3> shards;
  WeightMap weight_map;
  size_t next = 0;
  for (const auto& [name, tensor] : fixture_tensors()) {
    const size_t shard = next++ % shards.size();
    shards[shard][name] = tensor;
    weight_map[name] = fmt::format("{}.safetensors", shard);
  }
  for (size_t i = 0; i < shards.size(); ++i) write_raw(folder_ / fmt::format("{}.safetensors", i), shards[i]);
  put(folder_ / kIndexFile, format_index(weight_map, 1));
  EXPECT_EQ(difference(load(folder_.path()), expected_state()), "");
  EXPECT_EQ(HfFolder(folder_.path()).bytes(), HfFolder(kFixture).bytes());
}

TEST_F(FourBit, BytesAreThoseOfTheFile) {
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : fixture_tensors()) bytes += tensor.bytes.size();
  EXPECT_EQ(HfFolder(kFixture).bytes(), bytes);
}

// Transformers 5 packs a layer's experts; its names are without the leading "model." where a bare model was saved.
TEST_F(FourBit, ReadsPackedExpertsAndBareNames) {
  RawTensors tensors = fixture_tensors();
  const std::string experts = "model.layers.0.block_sparse_moe.experts.", w2 = "model.layers.0.mlp.experts.down_proj";
  RawTensors packed;
  for (const auto& [name, tensor] : tensors)
    if (name.find(".w2.") == name.npos) packed[name.starts_with(kQ) ? name.substr(6) : name] = tensor;
  const RawTensor& codes = tensors[experts + "0.w2.weight"];
  packed[w2] = {"U8", "[2048, 1]", codes.bytes + codes.bytes};
  const std::string absmax = tensors[experts + "0.w2.weight.absmax"].bytes;
  packed[w2 + ".absmax"] = {"F32", "[64]", absmax + absmax};
  packed[w2 + ".quant_map"] = tensors[kQ + ".quant_map"];
  const std::string state = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [2, 64, 32]})";
  packed[w2 + kNf4] = {"U8", fmt::format("[{}]", state.size()), state};
  write_raw(folder_ / kWeightsFile, packed);
  const State expected = expected_state(), loaded = load(folder_.path());
  for (int param = 0; param < loaded.size(); ++param) {
    const bool down = loaded.spec(param).name.ends_with(".down");
    const auto n = loaded.weight(param).elements() / (down ? 2 : 1);
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ(loaded.weight(param).as<float>()[i], expected.weight(param).as<float>()[i]);
      if (down) {
        ASSERT_EQ(loaded.weight(param).as<float>()[n + i], expected.weight(param).as<float>()[i]);
      }
    }
  }
}

// A checkpoint of such a model is a plain one: its values in the type of the states, and no quantization_config.
TEST_F(FourBit, WhatIsSavedOrExportedIsPlain) {
  const ModelFolder model(kFixture);
  const State layout(small_specs(kModel), {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
  const std::string exported = folder_ / "exported", saved = folder_ / "saved";
  export_model(layout, model.save_options(exported));
  save_checkpoint(ctx_, load(kFixture), model.save_options(saved));
  const SafetensorsFile expected(kFixture + "/expected.safetensors");
  for (const std::string& out : {exported, saved}) {
    EXPECT_EQ(get(out + "/config.json").find("quantization_config"), std::string::npos);
    const SafetensorsFile file(out + "/" + kWeightsFile);
    EXPECT_EQ(file.tensors().size(), 16u);
    for (const auto& [name, tensor] : file.tensors())
      if (const StoredTensor* wanted = expected.find(name)) {
        EXPECT_EQ(tensor.dtype, wanted->dtype) << name;
        EXPECT_TRUE(bytes_of_tensor(file, tensor) == bytes_of_tensor(expected, *wanted)) << name;
      }
    for (const ComparedTensor& tensor : compare_models({model.weights(), layout}, {HfFolder(out), layout}))
      EXPECT_TRUE(tensor.is_same()) << tensor.name;
  }
}

// Weights that are not trained, and held in less than the folder has, are made anew from it.
TEST_F(FourBit, WhatIsFrozenIsSavedAsItIs) {
  std::vector<ParamSpec> specs = small_specs(kModel);
  for (ParamSpec& spec : specs) spec.trainable = spec.name.find("norm") != spec.name.npos;
  State state(specs, {}, kMasterState, State::Purpose::kTraining);
  const ModelFolder model(kFixture);
  load_weights(ctx_, model.weights(), state);
  save_checkpoint(ctx_, state, model.save_options(folder_ / "saved"));
  const SafetensorsFile expected(kFixture + "/expected.safetensors"), file(folder_ / "saved/model.safetensors");
  for (const std::string& name : {kQ, kK})
    EXPECT_TRUE(bytes_of_tensor(file, *file.find(name)) == bytes_of_tensor(expected, *expected.find(name))) << name;
}

TEST_F(FourBit, ATensorWhosePartsDoNotFitIsNamed) {
  const RawTensors good = fixture_tensors();
  const auto with = [&](const std::string& name, const RawTensor& tensor) {
    RawTensors tensors = good;
    tensors[name] = tensor;
    return tensors;
  };
  const auto without = [&](const std::string& name) {
    RawTensors tensors = good;
    tensors.erase(name);
    return tensors;
  };
  for (const char* part : {"", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"})
    expect_refused(without(kQ + part), {"model.safetensors", kQ + part + "' is missing"});
  expect_refused(without(kQ + kNf4), {"q_proj.weight", "has shape [2048, 1]"});
  const std::string asks = "but its quant_state asks for";
  expect_refused(with(kQ, {"U8", "[2047, 1]", std::string(2047, 0)}), {kQ, "[2047, 1]", asks + " 2048 bytes"});
  expect_refused(with(kQ + ".absmax", {"U8", "[65]", std::string(65, 0)}), {".absmax", asks + " 64 bytes of U8"});
  expect_refused(with(kQ + ".absmax", {"F32", "[16]", std::string(64, 0)}), {".absmax", asks + " 64 bytes of U8"});
  expect_refused(with(kQ + ".nested_absmax", {"F32", "[2]", std::string(8, 0)}), {".nested_absmax", asks});
  expect_refused(with(kQ + ".nested_quant_map", {"F32", "[255]", std::string(1020, 0)}), {".nested_quant_map", asks});
  expect_refused(with(kQ + ".quant_map", {"F32", "[16]", std::string(64, 0)}), {".quant_map' has not NF4's 16 values"});
  expect_refused(with(kK + ".absmax", {"U8", "[16]", std::string(16, 0)}), {".absmax", asks + " 64 bytes of F32"});
  const auto state = [&](std::string text) {
    return with(kQ + kNf4, {"U8", fmt::format("[{}]", text.size()), text});
  };
  std::string text = good.at(kQ + kNf4).bytes;
  expect_refused(state("{}"), {kQ + kNf4, "has no quant_type"});
  expect_refused(state(std::string(5000, ' ')), {kQ + kNf4, "has 5000 bytes"});
  expect_refused(state(text.replace(text.find("[64, 64]"), 8, "[64, 65]")), {asks});
  RawTensors fp4 = without(kQ + kNf4);
  fp4[kQ + ".quant_state.bitsandbytes__fp4"] = good.at(kQ + kNf4);
  expect_refused(fp4, {"another 4-bit type than NF4"});
  RawTensors stray = good;
  stray["model.layers.9.self_attn.q_proj.weight.absmax"] = {"F32", "[1]", std::string(4, 0)};
  expect_refused(stray, {"layers.9", "has no place in the model"});
}

TEST_F(FourBit, AnAbsmaxThatIsNotFiniteIsNamed) {
  RawTensors tensors = fixture_tensors();
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(tensors[kK + ".absmax"].bytes.data() + 8, &infinity, sizeof(infinity));
  expect_refused(tensors, {kK, "holds NaN or infinity"});
}

}  // namespace
}  // namespace mixtune
