#include "checkpoint/training_state.h"

#include <functional>

#include "base/json_value.h"
#include "checkpoint/load.h"
#include "checkpoint/test_tensors.h"
#include "kernels/cast.h"
#include "kernels/testing.h"
#include "parallel/ranks.h"

namespace mixtune {
namespace {

Tensor flat(const Tensor& tensor) {
  return tensor.view({tensor.elements()});
}

void fill_part(const Tensor& part, uint64_t key, bool coarse) {
  if (!part) return;
  for (int64_t i = 0; i < part.elements(); ++i) {
    const auto x = static_cast<float>(random_normal(key, static_cast<uint64_t>(i)));
    if (part.dtype == DType::kBF16)
      part.as<BF16>()[i] = to_bf16(x);
    else
      part.as<float>()[i] = coarse ? to_float(to_bf16(x)) : x;
  }
}

// Random values, a weight that of its master, rounded. `coarse`: bf16 holds them exactly.
void fill_all(State& state, bool coarse) {
  for (int param = 0; param < state.size(); ++param) {
    const std::string& name = state.spec(param).name;
    fill_part(state.weight(param), random_key(1, name), coarse);
    fill_part(state.master(param), random_key(1, name), coarse);
    fill_part(state.first_moment(param), random_key(2, name), coarse);
    fill_part(state.second_moment(param), random_key(3, name), coarse);
  }
}

class TrainingState : public testing::Test {
 protected:
  SaveOptions options(DType saved) const {
    return {.out_folder = folder_ / "out", .config_json = "{}", .dtype = saved};
  }

  void save(const State& state, DType saved) {
    std::filesystem::remove_all(folder_ / "out");
    const SaveOptions all = options(saved);
    const auto world = make_single_communicator();
    WriteBehind behind(ctx_, WriteBehind::kLeastBytes);
    PendingCheckpoint pending(ctx_, state, all, *world, behind);
    put_training_state(ctx_, state, all, *world, pending);
    behind.wait();
    ASSERT_EQ(behind.take_failure(), nullptr);
    for (const auto& [name, file] : pending.written()->files())
      EXPECT_EQ(file, digest_file(pending.folder() + "/" + name));
    pending.commit();
  }

  // Expects in `state` what it counts of `whole`, as `cast` rounds it.
  void expect_counted(const State& whole, const State& state, int param, const Tensor& expected_all,
                      const Tensor& got) {
    if (!got) return;
    const ParamLayout::Piece counted = state.layout().counted(param);
    const int64_t first = got.data == state.weight(param).data ? 0 : state.layout().owned(param).begin;
    const Stack::Frame frame(ctx_.stack);
    const Tensor rounded = ctx_.stack.push("expected", {expected_all.elements()}, got.dtype);
    cast(ctx_, flat(expected_all), rounded);
    const Tensor expected = rounded.slice(counted.begin, counted.count),
                 found = flat(got).slice(counted.begin - first, counted.count);
    EXPECT_EQ(std::memcmp(found.data, expected.data, expected.bytes()), 0) << whole.spec(param).name;
  }

  void expect_loads(const State& whole, const StateTypes& types, const Replicas& replicas = {}) {
    State state(small_specs({}), {}, types, State::Purpose::kTraining, replicas);
    load_weights(ctx_, HfFolder(folder_ / "out"), state);
    load_training_state(ctx_, folder_ / "out", state);
    for (int param = 0; param < state.size(); ++param) {
      expect_counted(whole, state, param, whole.primary(param), state.primary(param));
      expect_counted(whole, state, param, whole.first_moment(param), state.first_moment(param));
      expect_counted(whole, state, param, whole.second_moment(param), state.second_moment(param));
    }
  }

  // The index, with a change.
  void edit(const std::function<void(nlohmann::json&)>& change) {
    const std::string path = folder_ / "out/state/index.json";
    nlohmann::json index = nlohmann::json::parse(get(path));
    change(index["pieces"]);
    put(path, index.dump());
  }

  void expect_bad(const std::function<void(nlohmann::json&)>& change, const std::vector<std::string>& fragments) {
    State whole(small_specs({}), {}, StateTypes{}, State::Purpose::kTraining);
    fill_all(whole, false);
    save(whole, DType::kBF16);
    edit(change);
    expect_user_error([&] { load_training_state(ctx_, folder_ / "out", whole); }, fragments);
  }

  TestCtx ctx_;
  TempFolder folder_;
};

const StateTypes kNarrow{.weights = DType::kBF16, .gradients = DType::kBF16, .moments = DType::kBF16};

TEST_F(TrainingState, EveryTypeIntoEveryType) {
  for (const StateTypes& wrote : {StateTypes{}, kBf16State, kMasterState, kNarrow}) {
    State whole(small_specs({}), {}, wrote, State::Purpose::kTraining);
    fill_all(whole, false);
    for (const DType saved : {DType::kF32, DType::kBF16}) {
      save(whole, saved);
      for (const StateTypes& types : {StateTypes{}, kBf16State, kMasterState, kNarrow}) expect_loads(whole, types);
    }
  }
}

TEST_F(TrainingState, RanksTakeTheirPieces) {
  State whole(small_specs({}), {}, kMasterState, State::Purpose::kTraining);
  fill_all(whole, false);
  save(whole, DType::kBF16);
  for (const bool sharded : {true, false})
    for (int rank = 0; rank < 3; ++rank) {
      const Ranks ranks = planned_ranks({.world = 3, .rank = rank});  // the others are not there
      expect_loads(whole, kMasterState, {.dense = ranks.dense.get(), .shard_optimizer = sharded});
    }
}

TEST_F(TrainingState, HasWeightsOnlyWhereTheFilesAreCoarser) {
  for (const auto& [types, saved, expected] :
       std::vector<std::tuple<StateTypes, DType, bool>>{{{}, DType::kF32, false},
                                                        {{}, DType::kBF16, true},
                                                        {kMasterState, DType::kF32, false},
                                                        {kMasterState, DType::kBF16, true},
                                                        {kBf16State, DType::kBF16, false},
                                                        {kBf16State, DType::kF32, false}}) {
    State whole(small_specs({}), {}, types, State::Purpose::kTraining);
    fill_all(whole, true);
    save(whole, saved);
    EXPECT_EQ(get(folder_ / "out/state/index.json").find("\"kind\":\"weight\"") != std::string::npos, expected);
  }
}

TEST_F(TrainingState, FrozenParametersHaveNone) {
  std::vector<ParamSpec> specs = small_specs({});
  specs[0].trainable = false;
  State whole(specs, {}, StateTypes{}, State::Purpose::kTraining);
  fill_all(whole, true);
  save(whole, DType::kF32);
  EXPECT_EQ(get(folder_ / "out/state/index.json").find("embed_tokens"), std::string::npos);
  State again(specs, {}, StateTypes{}, State::Purpose::kTraining);
  load_training_state(ctx_, folder_ / "out", again);
}

TEST_F(TrainingState, NothingInTheIndexIsTrusted) {
  const std::string whole = "is not there whole, each of its elements once";
  for (const size_t piece : {0, 1, 2}) {
    expect_bad([=](nlohmann::json& pieces) { pieces.erase(piece); }, {"index.json", whole});
    expect_bad([=](nlohmann::json& pieces) { pieces.push_back(pieces[piece]); }, {whole});
  }
  expect_bad(
      [](nlohmann::json& pieces) {
        pieces.push_back(pieces[0]);
        pieces.back()["tensor"] = "a.b";
      },
      {"'a.b'", "has no place in the model"});
  expect_bad([](nlohmann::json& pieces) { pieces[0]["kind"] = "third"; }, {"'third'", "version of mixtune"});
  expect_bad([](nlohmann::json& pieces) { pieces[0]["file"] = "../../x.safetensors"; }, {"outside its folder"});
  expect_bad([](nlohmann::json& pieces) { pieces[0]["entry"] = "none"; }, {"is not as its file has it"});
  expect_bad([](nlohmann::json& pieces) { pieces[0].erase("shape"); }, {"is not an index"});
  expect_bad([](nlohmann::json& pieces) { pieces = "text"; }, {"is not an index"});
  for (const char* field : {"first", "count"})
    for (const int64_t value : {int64_t{-1}, int64_t{1} << 62, std::numeric_limits<int64_t>::max()})
      expect_bad([&](nlohmann::json& pieces) { pieces[1][field] = value; }, {"is not as its file has it"});
  for (const char* field : {"shape", "begin", "size"})
    for (const int64_t value : {int64_t{-1}, int64_t{1} << 62, std::numeric_limits<int64_t>::max()})
      expect_bad([&](nlohmann::json& pieces) { pieces[1][field][0] = value; }, {"is not as its file has it"});
  for (const char* field : {"shape", "begin", "size"})
    expect_bad([&](nlohmann::json& pieces) { pieces[1][field] = {1, 1, 1, 1, 1}; }, {"is not as its file has it"});
}

TEST_F(TrainingState, OfAnotherShapeIsNotWhole) {
  State whole(small_specs({}), {}, StateTypes{}, State::Purpose::kTraining);
  fill_all(whole, true);
  save(whole, DType::kF32);
  State other(small_specs({.ffn = 7}), {}, StateTypes{}, State::Purpose::kTraining);
  expect_user_error([&] { load_training_state(ctx_, folder_ / "out", other); }, {"is not there whole"});
}

}  // namespace
}  // namespace mixtune
