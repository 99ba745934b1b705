#include "checkpoint/stream_weights.h"

#include "checkpoint/index.h"
#include "checkpoint/test_tensors.h"
#include "kernels/cast.h"
#include "kernels/testing.h"
#include "parallel/ranks.h"

namespace mixtune {
namespace {

// A model larger than a buffer: its tensors are cut.
constexpr SmallModel kLarge = {.layers = 1, .hidden = 512, .ffn = 64, .experts = 2, .kv = 128, .vocab = 12'345};

// Runs on the CPU, whose copies are a GPU's but for their memory and their time.
class Stream : public testing::Test {
 protected:
  void write(const std::vector<TestTensor>& tensors) {
    std::filesystem::remove(weights_);
    write_tensors(weights_, tensors);
  }

  // Moves the tensors to offsets that are multiples of nothing.
  void shift(size_t bytes) {
    std::string file = get(weights_);
    uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof(length));
    file.insert(sizeof(length) + length, bytes, ' ');
    length += bytes;
    std::memcpy(file.data(), &length, sizeof(length));
    put(weights_, file);
  }

  // Expects that all weights a rank counts, of a state of these types, are those of `wide`, rounded. Returns the
  // elements.
  int64_t expect_streams(const State& wide, const SmallModel& model, const StateTypes& types,
                         const Replicas& replicas = {}) {
    State state(small_specs(model), {}, types, State::Purpose::kTraining, replicas);
    stream_weights(ctx_, HfFolder(folder_.path()), state);
    int64_t streamed = 0;
    for (int param = 0; param < state.size(); ++param) {
      const Stack::Frame frame(ctx_.stack);
      const ParamLayout::Piece counted = state.layout().counted(param);
      const int64_t first = state.master(param) ? state.layout().owned(param).begin : 0;
      const Tensor primary = state.primary(param), got = primary.view({primary.elements()});
      const Tensor all = ctx_.stack.push("expected", wide.weight(param).shape, primary.dtype);
      cast(ctx_, wide.weight(param), all);
      const Tensor expected = all.view({all.elements()}).slice(counted.begin, counted.count);
      EXPECT_EQ(std::memcmp(got.slice(counted.begin - first, counted.count).data, expected.data, expected.bytes()), 0)
          << state.spec(param).name;
      streamed += counted.count;
    }
    return streamed;
  }

  void expect_fails(
      const std::vector<std::string>& fragments, const std::function<void()>& before = [] {}) {
    const HfFolder folder(folder_.path());
    State state = small_state();
    before();
    try {
      stream_weights(ctx_, folder, state);
      FAIL();
    } catch (const Error& error) {
      for (const std::string& fragment : fragments)
        EXPECT_NE(std::string(error.what()).find(fragment), std::string::npos) << error.what();
    }
  }

  TestCtx ctx_;
  TempFolder folder_;
  std::string weights_ = folder_ / kWeightsFile;
};

TEST_F(Stream, EveryTypeIntoEveryType) {
  for (const DType stored : {DType::kF32, DType::kBF16, DType::kF16}) {
    State wide = small_state();
    fill(wide, stored);
    write(hub_form(wide, stored));
    for (const StateTypes& types : {StateTypes{}, StateTypes::all(DType::kF64), kBf16State, kMasterState})
      expect_streams(wide, {}, types);
  }
}

TEST_F(Stream, TensorsLargerThanABufferAtOddOffsets) {
  for (const DType stored : {DType::kF32, DType::kBF16}) {
    State wide = small_state(kLarge);
    fill(wide, stored);
    write(hub_form(wide, stored));
    for (const StateTypes& types : {StateTypes{}, kBf16State}) expect_streams(wide, kLarge, types);
    shift(3);
    for (const StateTypes& types : {StateTypes{}, kBf16State}) expect_streams(wide, kLarge, types);
  }
}

TEST_F(Stream, RanksTogetherStreamEverything) {
  State wide = small_state(kLarge);
  fill(wide, DType::kBF16);
  write(hub_form(wide, DType::kBF16));
  constexpr int kRanks = 4;
  for (const StateTypes& types : {StateTypes{}, kBf16State, kMasterState}) {
    int64_t streamed = 0;
    for (int rank = 0; rank < kRanks; ++rank) {
      const Ranks ranks = planned_ranks({.world = kRanks, .rank = rank});  // the others are not there
      streamed += expect_streams(wide, kLarge, types, {.dense = ranks.dense.get(), .shard_optimizer = true});
    }
    EXPECT_EQ(streamed, wide.layout().elements());
  }
}

TEST_F(Stream, PackedLayout) {
  State wide = small_state();
  fill(wide);
  write(packed_form(wide));
  expect_streams(wide, {}, {});
}

TEST_F(Stream, ABoxOfATensor) {
  State wide = small_state();
  fill(wide);
  write(packed_form(wide));
  const std::string name = "model.layers.1.block_sparse_moe.experts.2.w3.weight";
  auto tensors = hub_form(wide);
  const std::vector<float>& values = named(tensors, name).values;
  const Box whole({6, 8});
  for (const Box& box : {whole.cut(0, 3, 2), whole.cut(1, 2, 5), whole.cut(0, 1, 4).cut(1, 7, 1)}) {
    State state({{"part", box.shape(), {{name, box}}}}, {}, DType::kF32, State::Purpose::kInference);
    stream_weights(ctx_, HfFolder(folder_.path()), state);
    for (int64_t i = 0; i < box.elements(); ++i) EXPECT_EQ(state.weight(0).as<float>()[i], values[box.place(i)]);
  }
}

TEST_F(Stream, Shards) {
  State wide = small_state();
  fill(wide, DType::kBF16);
  const auto tensors = hub_form(wide, DType::kBF16);
  WeightMap weight_map;
  for (size_t i = 0; i < 7; ++i) {
    std::vector<TestTensor> shard;
    for (size_t t = i; t < tensors.size(); t += 7) {
      weight_map[tensors[t].entry.name] = fmt::format("{}.safetensors", i);
      shard.push_back(tensors[t]);
    }
    write_tensors(folder_ / fmt::format("{}.safetensors", i), shard);
  }
  put(folder_ / kIndexFile, format_index(weight_map, 1));
  for (const StateTypes& types : {StateTypes{}, kBf16State, kMasterState}) expect_streams(wide, {}, types);
}

TEST_F(Stream, AFileThatWasReplaced) {
  State wide = small_state(), state = small_state();
  fill(wide);
  write(hub_form(wide));
  const HfFolder folder(folder_.path());
  write(hub_form(state));
  stream_weights(ctx_, folder, state);
  EXPECT_EQ(difference(wide, state), "");
}

TEST_F(Stream, Errors) {
  State wide = small_state();
  fill(wide);
  auto tensors = hub_form(wide);
  write(tensors);
  const std::string good = get(weights_);
  expect_fails({weights_, "changed while it was read"}, [&] { put(weights_, good + "x"); });
  put(weights_, good);
  expect_fails({weights_, "changed while it was read"}, [&] { put(weights_, good.substr(0, good.size() / 2)); });
  named(tensors, "model.layers.1.block_sparse_moe.experts.1.w2.weight").values[17] =
      std::numeric_limits<float>::quiet_NaN();
  for (const DType stored : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (TestTensor& tensor : tensors) tensor.entry.dtype = stored;
    write(tensors);
    expect_fails({weights_, "'model.layers.1.block_sparse_moe.experts.1.w2.weight' holds NaN or infinity"});
  }
}

}  // namespace
}  // namespace mixtune
