#include "checkpoint/added_rows.h"

#include <limits>

#include "checkpoint/load.h"
#include "checkpoint/save.h"
#include "checkpoint/test_tensors.h"
#include "kernels/cast.h"
#include "kernels/testing.h"
#include "parallel/ranks.h"

namespace mixtune {
namespace {

constexpr int64_t kAdded = 3;

SmallModel resized(SmallModel model) {
  model.vocab += kAdded;
  model.added = kAdded;
  return model;
}

// A model whose tables are read in two blocks.
constexpr SmallModel kManyRows = {.layers = 1, .hidden = 512, .ffn = 16, .experts = 1, .kv = 4, .vocab = 4'321};

class AddedRows : public testing::Test {
 protected:
  // Makes the folder a checkpoint of this model.
  void write(const SmallModel& model, DType dtype) {
    old_ = std::make_unique<State>(small_state(model));
    fill(*old_, dtype);
    std::filesystem::remove(folder_ / kWeightsFile);
    write_tensors(folder_ / kWeightsFile, hub_form(*old_, dtype));
    expected_.clear();
    for (int param = 0; param < old_->size(); ++param) expected_.push_back(expect(param));
  }

  // The expected parameter: the old one, and below it the mean of its rows for each added row.
  std::vector<float> expect(int param) const {
    const Tensor old = old_->weight(param);
    const int64_t rows = old.shape[0], columns = old.row_elements();
    std::vector<float> values(old.as<float>(), old.as<float>() + old.elements());
    if (!is_table(param)) return values;
    for (int64_t added = 0; added < kAdded; ++added)
      for (int64_t column = 0; column < columns; ++column) {
        double sum = 0;
        for (int64_t row = 0; row < rows; ++row) sum += double{values[row * columns + column]};
        values.push_back(static_cast<float>(sum / static_cast<double>(rows)));
      }
    return values;
  }
  bool is_table(int param) const {
    const std::string& name = old_->spec(param).name;
    return name == "embedding" || name == "head";
  }

  // Expects that each added row that this rank counts is the mean, in the primary's type. Returns the elements.
  int64_t expect_means(const State& state) {
    int64_t elements = 0;
    for (int param = 0; param < state.size(); ++param) {
      if (!is_table(param)) continue;
      std::vector<float>& wide = expected_[param];
      const auto all = static_cast<int64_t>(wide.size()), stored = old_->weight(param).elements();
      const Tensor primary = state.primary(param), got = primary.view({primary.elements()});
      const Stack::Frame frame(ctx_.stack);
      const Tensor rounded = ctx_.stack.push("expected", {all}, primary.dtype);
      cast(ctx_, host_tensor(wide.data(), {all}), rounded);
      const ParamLayout::Piece counted = state.layout().counted(param);
      const int64_t first = state.master(param) ? state.layout().owned(param).begin : 0;
      const int64_t begin = std::max(stored, counted.begin), count = counted.begin + counted.count - begin;
      if (count <= 0) continue;
      const Tensor want = rounded.slice(begin, count);
      EXPECT_EQ(std::memcmp(got.slice(begin - first, count).data, want.data, want.bytes()), 0) << param;
      elements += count;
    }
    return elements;
  }

  TestCtx ctx_;
  TempFolder folder_;
  std::unique_ptr<State> old_;
  std::vector<std::vector<float>> expected_;  // of each parameter
};

TEST_F(AddedRows, AreTheMeanOfEveryTypeInEveryType) {
  for (const DType stored : {DType::kF32, DType::kBF16, DType::kF16}) {
    write({}, stored);
    const HfFolder folder(folder_.path());
    for (const StateTypes& types : {StateTypes{}, StateTypes::all(DType::kF64), kBf16State, kMasterState}) {
      State state(small_specs(resized({})), {}, types, State::Purpose::kTraining);
      EXPECT_EQ(fill_added_rows(ctx_, folder, state), 2 * 10 * 8 * dtype_size(stored));
      EXPECT_EQ(expect_means(state), 2 * kAdded * 8);
    }
  }
}

// Loads on one rank after the other: the others are not there.
TEST_F(AddedRows, HaveTheSameBitsOnEveryLayout) {
  write(kManyRows, DType::kBF16);
  const HfFolder folder(folder_.path());
  for (const int count : {1, 3, 8})
    for (const StateTypes& types : {StateTypes{}, kMasterState}) {
      int64_t elements = 0;
      for (int rank = 0; rank < count; ++rank) {
        const Ranks ranks = planned_ranks({.world = count, .rank = rank});
        State state(small_specs(resized(kManyRows)), {}, types, State::Purpose::kTraining,
                    {.dense = ranks.dense.get(), .shard_optimizer = true});
        const uint64_t read = fill_added_rows(ctx_, folder, state);
        const int64_t here = expect_means(state);
        EXPECT_EQ(read > 0, here > 0);
        elements += here;
      }
      EXPECT_EQ(elements, 2 * kAdded * 512);
    }
}

TEST_F(AddedRows, OfALoadedModel) {
  for (const bool tied : {false, true}) {
    const SmallModel model = {.tied = tied};
    write(model, DType::kF32);
    State state = small_state(resized(model));
    const HfFolder folder(folder_.path());
    load_weights(ctx_, folder, state);
    for (int param = 0; param < state.size(); ++param) {
      const std::vector<float>& want = expected_[param];
      ASSERT_EQ(static_cast<int64_t>(want.size()), state.weight(param).elements());
      EXPECT_EQ(std::memcmp(want.data(), state.weight(param).data, want.size() * sizeof(float)), 0) << param;
    }
  }
}

TEST_F(AddedRows, AreSavedInTheTypeOfTheOthers) {
  write({}, DType::kBF16);
  const HfFolder source(folder_.path());
  State state = small_state(resized({}));
  load_weights(ctx_, source, state);
  const std::string saved = folder_ / "saved";
  save_checkpoint(ctx_, state, {.out_folder = saved, .config_json = "{}", .source = &source});
  const HfFolder folder(saved);
  EXPECT_EQ(folder.stored_dtype(), DType::kBF16);
  EXPECT_EQ(folder.bytes(), static_cast<uint64_t>(state.layout().elements()) * 2);
  State again = small_state({.vocab = 10 + kAdded});
  load_weights(ctx_, folder, again);
  for (int param = 0; param < again.size(); ++param) {
    std::vector<float> want = expected_[param];
    for (float& value : want) value = to_float(to_bf16(value));
    EXPECT_EQ(std::memcmp(want.data(), again.weight(param).data, want.size() * sizeof(float)), 0) << param;
  }
}

TEST_F(AddedRows, TheCheckpointHasTheRowsOfItsConfig) {
  write({.vocab = 11}, DType::kF32);
  State state = small_state(resized({}));
  const HfFolder folder(folder_.path());
  expect_user_error([&] { check_weights(folder, state); },
                    {"'model.embed_tokens.weight' has shape [11, 8], but config.json asks for [10, 8]"});
}

TEST_F(AddedRows, ARowThatIsNotFinite) {
  write({}, DType::kF32);
  auto tensors = hub_form(*old_);
  named(tensors, "lm_head.weight").values[17] = std::numeric_limits<float>::infinity();
  std::filesystem::remove(folder_ / kWeightsFile);
  write_tensors(folder_ / kWeightsFile, tensors);
  State state = small_state(resized({}));
  const HfFolder folder(folder_.path());
  expect_user_error([&] { fill_added_rows(ctx_, folder, state); }, {"'lm_head.weight' holds NaN or infinity"});
}

}  // namespace
}  // namespace mixtune
