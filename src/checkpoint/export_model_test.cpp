#include "checkpoint/export_model.h"

#include "checkpoint/load.h"
#include "checkpoint/model_folder.h"
#include "checkpoint/shards.h"
#include "checkpoint/test_tensors.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr SmallModel kLongTables = {.layers = 1, .vocab = 600'000};  // tables that are read in several goes

State layout_of(const SmallModel& model) {
  return State(small_specs(model), {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
}

class ExportModel : public testing::Test {
 protected:
  void save(const State& state, const std::string& out, DType dtype) {
    save_checkpoint(ctx_, state, {.out_folder = out, .config_json = R"({"dtype": "float32"})", .dtype = dtype});
  }

  ExportReport export_to(const std::string& out, const SmallModel& model, std::optional<DType> dtype,
                         uint64_t max_shard_size = 1 << 30) {
    const ModelFolder folder(source_);
    SaveOptions options = folder.save_options(out);
    options.dtype = dtype;
    options.max_shard_size = max_shard_size;
    return export_model(layout_of(model), options);
  }

  void expect_same(const std::string& a, const std::string& b) {
    EXPECT_EQ(entries(a), entries(b));
    for (const std::string& name : entries(a)) EXPECT_TRUE(get(a + "/" + name) == get(b + "/" + name)) << name;
  }

  TestCtx ctx_;
  TempFolder folder_;
  const std::string source_ = folder_ / "source";
};

// Every pair of types: the bytes that saving the same weights writes.
TEST_F(ExportModel, WritesWhatSavingWrites) {
  State state = small_state();
  fill_for_all_types(state);
  for (const DType from : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (from == DType::kBF16) fill(state, DType::kBF16);
    save(state, source_, from);
    for (const DType to : {DType::kF32, DType::kBF16, DType::kF16}) {
      save(state, folder_ / "expected", to);
      const ExportReport report = export_to(folder_ / "out", {}, to);
      expect_same(folder_ / "out", folder_ / "expected");
      EXPECT_EQ(report.bytes, HfFolder(folder_ / "out").bytes());
      EXPECT_EQ(report.from_state, 0u);
      for (const char* name : {"out", "expected"}) std::filesystem::remove_all(folder_ / name);
    }
    std::filesystem::remove_all(source_);
    fill_for_all_types(state);
  }
}

TEST_F(ExportModel, TensorsThatAreReadInSeveralGoes) {
  State state = small_state(kLongTables);
  fill(state);
  save(state, source_, DType::kF32);
  save(state, folder_ / "expected", DType::kBF16);
  export_to(folder_ / "out", kLongTables, DType::kBF16);
  expect_same(folder_ / "out", folder_ / "expected");
}

// Packed experts, without the leading "model.": the hub's tensors come of them.
TEST_F(ExportModel, FromAnyLayout) {
  State state = small_state();
  fill(state);
  save(state, folder_ / "expected", DType::kF32);
  std::vector<TestTensor> tensors = packed_form(state);
  for (TestTensor& tensor : tensors)
    if (tensor.entry.name.starts_with("model.")) tensor.entry.name.erase(0, 6);
  std::filesystem::create_directory(source_);
  write_tensors(source_ + "/model.safetensors", tensors);
  put(source_ + "/config.json", R"({"dtype": "float32"})");
  export_to(folder_ / "out", {}, {});
  expect_same(folder_ / "out", folder_ / "expected");
}

TEST_F(ExportModel, AFailureLeavesNothing) {
  State state = small_state();
  fill(state);
  state.weight(state.size() - 1).as<float>()[3] = 70'000;
  save(state, source_, DType::kF32);
  expect_user_error([&] { export_to(folder_ / "out", {}, DType::kF16, 100); },
                    {"model.safetensors: tensor 'lm_head.weight' holds a value too large for fp16", "--dtype bf16"});
  EXPECT_EQ(entries(folder_.path()), std::vector<std::string>{"source"});
}

TEST(Shards, AreFilledInOrderWideTypesFirst) {
  const auto entry = [](const char* name, DType dtype, int64_t n) {
    return TensorEntry{name, dtype, {n}};
  };
  const auto shards =
      cut_into_shards({entry("c", DType::kBF16, 10), entry("b", DType::kF32, 5), entry("a", DType::kBF16, 10),
                       entry("large", DType::kF32, 100), entry("d", DType::kF32, 1)},
                      60);
  std::vector<std::vector<std::string>> names;
  for (const auto& shard : shards)
    for (names.emplace_back(); const TensorEntry& tensor : shard) names.back().push_back(tensor.name);
  EXPECT_EQ(names, (std::vector<std::vector<std::string>>{{"b", "c", "a"}, {"large"}, {"d"}}));
  EXPECT_EQ(shard_name(0, 1), "model.safetensors");
  EXPECT_EQ(shard_name(1, 3), "model-00002-of-00003.safetensors");
}

}  // namespace
}  // namespace mixtune
