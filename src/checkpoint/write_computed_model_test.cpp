#include "checkpoint/write_computed_model.h"

#include <stdexcept>
#include <utility>

#include "checkpoint/shards.h"
#include "checkpoint/test_tensors.h"
#include "kernels/cast.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr SmallModel kSmall, kTied = {.tied = true};
constexpr SmallModel kLongTables = {.layers = 1, .vocab = 600'000};  // tables of several stretches

class WriteComputedModel : public testing::Test {
 protected:
  SaveOptions options(const std::string& out, DType dtype, uint64_t max_shard_size) {
    return {.out_folder = folder_ / out,
            .config_json = R"({"dtype": "float32"})",
            .side_files = side_files_,
            .dtype = dtype,
            .max_shard_size = max_shard_size};
  }

  // Writes the values that a state has.
  void write(const State& state, const SmallModel& model, const SaveOptions& options, const BytesDone& progress = {}) {
    const State shape(small_specs(model), {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
    const auto values = [&](const TensorEntry& tensor, int64_t first, const Tensor& to) {
      for (int param = 0; param < state.size(); ++param)
        for (const HfBlock& block : state.spec(param).blocks)
          if (block.name == tensor.name) {
            const Tensor weight = state.weight(param);
            cast(ctx_, weight.view({weight.elements()}).slice(block.offset + first, to.elements()), to);
          }
    };
    write_computed_model(ctx_, shape, options, values, progress);
  }

  void expect_same(const std::string& a, const std::string& b) {
    EXPECT_EQ(entries(folder_ / a), entries(folder_ / b));
    for (const std::string& name : entries(folder_ / a))
      EXPECT_TRUE(get(folder_ / a + "/" + name) == get(folder_ / b + "/" + name)) << name;
  }

  // How many files of 700 bytes a state has.
  size_t files_of(const State& state) {
    std::vector<TensorEntry> tensors;
    for (int param = 0; param < state.size(); ++param)
      for (const HfBlock& block : state.spec(param).blocks) tensors.push_back({block.name, DType::kF32, block.shape()});
    return cut_into_shards(std::move(tensors), 700).size();
  }

  TestCtx ctx_;
  TempFolder folder_;
  const std::vector<SideFile> side_files_ = {{"tokenizer.json", "{}"}};
};

TEST_F(WriteComputedModel, WritesWhatSavingTheSameValuesWrites) {
  for (const SmallModel& model : {kSmall, kTied, kLongTables})
    for (const DType dtype : {DType::kF32, DType::kBF16})
      for (const uint64_t max_shard_size : {uint64_t{700}, uint64_t{1} << 40}) {
        State state = small_state(model);
        fill(state);
        save_checkpoint(ctx_, state, options("expected", dtype, max_shard_size));
        uint64_t told = 0, all = 0;
        write(state, model, options("out", dtype, max_shard_size), [&](uint64_t done, uint64_t bytes) {
          EXPECT_GT(done, told);
          told = done;
          all = bytes;
        });
        EXPECT_EQ(told, all);
        expect_same("out", "expected");
        EXPECT_EQ(entries(folder_ / "out").size() > 3, max_shard_size == 700);
        for (const char* name : {"out", "expected"}) std::filesystem::remove_all(folder_ / name);
      }
}

TEST_F(WriteComputedModel, LeavesNothingWhereItIsInterrupted) {
  const State state = small_state();
  int calls = 0;
  const auto stop = [&](uint64_t, uint64_t) {
    if (++calls == 5) throw std::runtime_error("stop");
  };
  EXPECT_THROW(write(state, kSmall, options("out", DType::kF32, 700), stop), std::runtime_error);
  EXPECT_EQ(calls, 5);
  EXPECT_TRUE(entries(folder_.path()).empty());
}

// The last file has the name of one that is there: the thread that writes cannot make it.
TEST_F(WriteComputedModel, LeavesNothingWhereWritingFails) {
  const State state = small_state();
  bool is_taken = false;
  const auto take = [&](uint64_t, uint64_t) {
    for (const std::string& staged : entries(folder_.path()))
      if (!std::exchange(is_taken, true))
        put(folder_ / staged + "/" + shard_name(files_of(state) - 1, files_of(state)), "");
  };
  EXPECT_THROW(write(state, kSmall, options("out", DType::kF32, 700), take), Error);
  EXPECT_TRUE(is_taken);
  EXPECT_TRUE(entries(folder_.path()).empty());
}

TEST_F(WriteComputedModel, RefusesAFolderThatExists) {
  const State state = small_state();
  std::filesystem::create_directory(folder_ / "out");
  expect_user_error([&] { write(state, kSmall, options("out", DType::kF32, 700)); }, {"out", "exists"});
  EXPECT_TRUE(entries(folder_ / "out").empty());
}

}  // namespace
}  // namespace mixtune
