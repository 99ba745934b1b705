#include "checkpoint/save.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <iterator>
#include <limits>

#include "base/output_file.h"
#include "checkpoint/index.h"
#include "checkpoint/load.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/safetensors_writer.h"
#include "checkpoint/test_tensors.h"
#include "kernels/cast.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr const char* kConfig = "{\n  \"a\": {\"dtype\": \"float32\"},\n  \"torch_dtype\" : \"float32\"\n}\n";

SaveOptions with_shards(SaveOptions options, uint64_t max_shard_size) {
  options.max_shard_size = max_shard_size;
  return options;
}

// Makes a source folder with weights of `dtype` and side files.
void make_source(const std::string& path, DType dtype) {
  State state = small_state();
  fill(state, dtype);
  TestCtx ctx;
  save_checkpoint(ctx, state, {.out_folder = path, .config_json = kConfig, .dtype = dtype});
  put(path + "/tokenizer.model", std::string("\0\xff\n binary", 10));
  put(path + "/LICENSE", "");
}

class Save : public testing::Test {
 protected:
  State load(const std::string& path) {
    State state = small_state();
    load_weights(ctx_, HfFolder(path), state);
    return state;
  }

  TestCtx ctx_;
  TempFolder folder_;
  std::string source_ = folder_ / "source", out_ = folder_ / "out";
};

TEST_F(Save, UntouchedModelIsTheSameBits) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    make_source(source_, dtype);
    save_checkpoint(ctx_, load(source_), ModelFolder(source_).save_options(out_));
    EXPECT_EQ(entries(out_), entries(source_));
    for (const std::string& name : entries(source_))
      EXPECT_EQ(get(out_ + "/" + name), get(source_ + "/" + name)) << name;
    std::filesystem::remove_all(source_);
    std::filesystem::remove_all(out_);
  }
}

// Norms are fp32 beside bf16 matrices: each keeps its type, and the wide ones are aligned.
TEST_F(Save, MixedTypesAreKept) {
  State state = small_state();
  fill(state, DType::kBF16);
  make_source(source_, DType::kBF16);
  std::vector<TensorEntry> table;
  const SafetensorsFile original(source_ + "/" + kWeightsFile);
  for (const auto& [name, tensor] : original.tensors())
    table.push_back({name, name.ends_with("norm.weight") ? DType::kF32 : DType::kBF16, tensor.shape});
  const std::string mixed = folder_ / "mixed";
  std::filesystem::create_directory(mixed);
  put(mixed + "/config.json", kConfig);
  SafetensorsWriter writer(mixed + "/" + kWeightsFile, table);
  for (size_t i = 0; i < table.size(); ++i) {
    const TensorEntry& entry = table[i];
    const std::vector<float> values = stored_values(original, entry.name);
    std::vector<BF16> narrow_values;
    for (const float value : values) narrow_values.push_back(to_bf16(value));
    writer.write(
        i, 0, entry.dtype == DType::kF32 ? std::as_bytes(std::span(values)) : std::as_bytes(std::span(narrow_values)));
  }
  writer.finish();
  save_checkpoint(ctx_, load(mixed), ModelFolder(mixed).save_options(out_));
  const SafetensorsFile before(mixed + "/" + kWeightsFile), after(out_ + "/" + kWeightsFile);
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  for (const auto& [name, tensor] : before.tensors()) {
    const StoredTensor& saved = *after.find(name);
    EXPECT_EQ(saved.dtype, tensor.dtype) << name;
    EXPECT_EQ(after.file().read(saved.begin, saved.bytes()), before.file().read(tensor.begin, tensor.bytes())) << name;
    EXPECT_EQ(saved.begin % dtype_size(*saved.dtype), 0u) << name;
  }
}

// Also where it is held in less than the model has.
TEST_F(Save, WhatIsFrozenHasTheModelsBytes) {
  std::vector<ParamSpec> specs = small_specs({});
  for (ParamSpec& spec : specs) spec.trainable = spec.name.find("norm") != spec.name.npos;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (const bool masters : {true, false}) {
      make_source(source_, dtype);
      const ModelFolder model(source_);
      State state(specs, {}, masters ? kMasterState : kBf16State, State::Purpose::kTraining);
      load_weights(ctx_, model.weights(), state);
      for (int p = 0; p < state.size(); ++p)
        EXPECT_EQ(static_cast<bool>(state.master(p)), masters && specs[p].trainable);
      save_checkpoint(ctx_, state, with_shards(model.save_options(out_), 1000));
      const HfFolder before(source_), after(out_);
      EXPECT_GT(after.files().size(), 1u);
      for (const ParamSpec& spec : specs)
        for (const HfBlock& block : spec.blocks) {
          const StoredValues was = before.stored(block), is = after.stored(block);
          ASSERT_EQ(is.dtype, was.dtype);
          const uint64_t size = block.elements() * dtype_size(was.dtype);
          const bool same = was.file->file().read(was.begin, size) == is.file->file().read(is.begin, size);
          const bool rounded = spec.trainable && !masters && dtype != DType::kBF16;
          EXPECT_TRUE(same || rounded) << block.name;
        }
      std::filesystem::remove_all(source_);
      std::filesystem::remove_all(out_);
    }
}

TEST_F(Save, Shards) {
  make_source(source_, DType::kF32);
  const State state = load(source_);
  const uint64_t all = static_cast<uint64_t>(state.layout().elements()) * 4;
  save_checkpoint(ctx_, state, with_shards(ModelFolder(source_).save_options(out_), all / 3));
  EXPECT_FALSE(std::filesystem::exists(out_ + "/" + kWeightsFile));
  const std::string index = get(out_ + "/" + kIndexFile);
  EXPECT_NE(index.find(fmt::format("\"total_size\": {}", all)), std::string::npos);
  const HfFolder saved(out_);
  EXPECT_GE(saved.files().size(), 3u);
  for (size_t i = 0; i < saved.files().size(); ++i)
    EXPECT_EQ(saved.files()[i].path(),
              fmt::format("{}/model-{:05}-of-{:05}.safetensors", out_, i + 1, saved.files().size()));
  EXPECT_EQ(difference(load(out_), state), "");
}

TEST_F(Save, AShardHoldsAtLeastOneTensor) {
  make_source(source_, DType::kF32);
  const ModelFolder source(source_);
  save_checkpoint(ctx_, load(source_), with_shards(source.save_options(out_), 1));
  const HfFolder saved(out_);
  for (const SafetensorsFile& file : saved.files()) EXPECT_EQ(file.tensors().size(), 1u);
  EXPECT_EQ(difference(load(out_), load(source_)), "");
}

TEST_F(Save, RoundsToNearestEvenAndSaysSoInTheConfig) {
  make_source(source_, DType::kF32);
  const State state = load(source_);
  const ModelFolder source(source_);
  SaveOptions options = source.save_options(out_);
  options.dtype = DType::kBF16;
  save_checkpoint(ctx_, state, options);
  const State saved = load(out_);
  for (int param = 0; param < state.size(); ++param)
    for (int64_t i = 0; i < state.weight(param).elements(); ++i)
      ASSERT_EQ(saved.weight(param).as<float>()[i], to_float(to_bf16(state.weight(param).as<float>()[i])));
  std::string config = kConfig;
  EXPECT_EQ(get(out_ + "/config.json"), config.replace(config.rfind("float32"), 7, "bfloat16"));
}

State bf16_state(bool masters) {
  return State(small_specs({}), {}, {.weights = DType::kBF16, .masters = masters}, State::Purpose::kTraining);
}

TEST_F(Save, Bf16Weights) {
  State wide = small_state(), state = bf16_state(false);
  fill_for_all_types(wide);
  for (int param = 0; param < state.size(); ++param) cast(ctx_, wide.weight(param), state.weight(param));
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    save_checkpoint(ctx_, state, {.out_folder = out_, .config_json = "{}", .dtype = dtype});
    EXPECT_EQ(difference(load(out_), wide), "");
    std::filesystem::remove_all(out_);
  }
  state.weight(2).as<BF16>()[1] = to_bf16(std::numeric_limits<float>::infinity());
  EXPECT_THROW(save_checkpoint(ctx_, state, {.out_folder = out_, .config_json = "{}", .dtype = DType::kBF16}), Error);
}

TEST_F(Save, MastersRatherThanBf16Weights) {
  State wide = small_state(), state = bf16_state(true);
  fill(wide);
  for (int param = 0; param < state.size(); ++param) {
    copy(ctx_, wide.weight(param), state.master(param));
    state.publish(ctx_, param);
  }
  save_checkpoint(ctx_, state, {.out_folder = out_, .config_json = "{}", .dtype = DType::kF32});
  EXPECT_EQ(difference(load(out_), wide), "");
}

// One bf16 parameter among those of fp32, all of which the checkpoint has in fp32.
TEST_F(Save, TheMasterOfAParameterInADTypeOfItsOwn) {
  make_source(source_, DType::kF32);
  std::vector<ParamSpec> specs = small_specs({});
  std::ranges::find(specs, "model.layers.0.self_attn.o_proj.weight", &ParamSpec::name)->dtype = DType::kBF16;
  State state(specs, {}, {.masters = true}, State::Purpose::kTraining);
  load_weights(ctx_, HfFolder(source_), state);
  save_checkpoint(ctx_, state, ModelFolder(source_).save_options(out_));
  EXPECT_EQ(get(out_ + "/" + kWeightsFile), get(source_ + "/" + kWeightsFile));
}

// A parameter that no checkpoint has yet (an adapter's, say): loading leaves it, saving writes it as it is held.
// Beside the model, as the adapters that it is, with what of the model is trained.
TEST_F(Save, WhatIsNotLoadedIsSavedAsItIsHeld) {
  make_source(source_, DType::kF32);
  std::vector<ParamSpec> specs = small_specs({});
  for (ParamSpec& spec : specs) spec.trainable = spec.name == "head";
  const Shape shape{2, 8};
  specs.push_back({.name = "added",
                   .shape = shape,
                   .blocks = {{"added.weight", Box(shape)}},
                   .dtype = DType::kBF16,
                   .origin = ParamSpec::Origin::kInitialised});
  State state(specs, {}, DType::kF32, State::Purpose::kInference);
  const Tensor added = state.weight(state.size() - 1);
  std::fill_n(added.as<BF16>(), added.elements(), to_bf16(3));
  load_weights(ctx_, HfFolder(source_), state);
  EXPECT_EQ(to_float(added.as<BF16>()[5]), 3);

  const ModelFolder source(source_);
  save_checkpoint(ctx_, state, source.save_options(out_));
  const HfFolder saved(out_);
  EXPECT_EQ(*saved.locate("model.norm.weight", {8}).stored->dtype, DType::kF32);
  for (const SafetensorsFile& file : saved.files()) EXPECT_EQ(file.find("added.weight"), nullptr);

  SaveOptions beside = source.save_options(folder_ / "beside");
  beside.what = SaveOptions::What::kAdapters;
  save_checkpoint(ctx_, state, beside);
  const SafetensorsFile file(folder_ / "beside/adapter_model.safetensors");
  EXPECT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(stored_values(file, "base_model.model.lm_head.weight"),
            stored_values(SafetensorsFile(source_ + "/" + kWeightsFile), "lm_head.weight"));
  EXPECT_EQ(*file.find("added.weight")->dtype, DType::kBF16);
  EXPECT_EQ(stored_values(file, "added.weight"), std::vector<float>(shape.elements(), 3));
}

TEST_F(Save, NeverWritesOverAnything) {
  make_source(source_, DType::kF32);
  const ModelFolder source(source_);
  const State state = load(source_);
  put(out_, "kept");
  expect_user_error([&] { save_checkpoint(ctx_, state, source.save_options(out_)); }, {"exists already"});
  expect_user_error([&] { save_checkpoint(ctx_, state, source.save_options(source_ + "/")); }, {"exists already"});
  expect_user_error([&] { save_checkpoint(ctx_, state, source.save_options(folder_ / "no/out")); }, {"cannot be made"});
  EXPECT_EQ(get(out_), "kept");
}

// The kernel refuses the write, as on a full disk.
TEST_F(Save, LeavesNothingWhenAWriteFails) {
  make_source(source_, DType::kF32);
  const ModelFolder source(source_);
  const State state = load(source_);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{4096, old.rlim_max};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    save_checkpoint(ctx_, state, source.save_options(out_));
  } catch (const Error& error) {
    message = error.what();
    EXPECT_EQ(error.exit_code(), ExitCode::kFailed);
  }
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_NE(message.find("model.safetensors: cannot be written: File too large"), std::string::npos) << message;
  EXPECT_EQ(entries(folder_.path()), std::vector<std::string>{"source"});
}

TEST_F(Save, WeightsThatAreNotFiniteAreNotSaved) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    State state = small_state();
    state.weight(0).as<float>()[1] = std::numeric_limits<float>::quiet_NaN();
    try {
      save_checkpoint(ctx_, state, {.out_folder = out_, .config_json = "{}", .dtype = dtype});
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kWentBad);
    }
    EXPECT_TRUE(entries(folder_.path()).empty());
  }
}

TEST_F(Save, F16OverflowIsAnError) {
  State state = small_state();
  state.weight(0).as<float>()[0] = 1e6f;
  EXPECT_THROW(save_checkpoint(ctx_, state, {.out_folder = out_, .config_json = "{}", .dtype = DType::kF16}), Error);
  EXPECT_TRUE(entries(folder_.path()).empty());
}

}  // namespace
}  // namespace mixtune
