#include "checkpoint/compare_models.h"

#include <cmath>

#include "checkpoint/save.h"
#include "checkpoint/test_tensors.h"
#include "kernels/testing.h"

namespace mixtune {
namespace {

class CompareModels : public testing::Test {
 protected:
  void save(const State& state, const std::string& name, DType dtype = DType::kF32) {
    save_checkpoint(ctx_, state, {.out_folder = folder_ / name, .config_json = "{}", .dtype = dtype});
  }

  std::vector<ComparedTensor> compare(const SmallModel& a = {}, const SmallModel& b = {}) {
    const auto layout = [](const SmallModel& model) {
      return State(small_specs(model), {DeviceType::kMeta}, DType::kF32, State::Purpose::kInference);
    };
    const HfFolder first(folder_ / "a"), second(folder_ / "b");
    return compare_models({first, layout(a)}, {second, layout(b)});
  }

  static const ComparedTensor& named(const std::vector<ComparedTensor>& tensors, const std::string& name) {
    return *std::ranges::find(tensors, name, &ComparedTensor::name);
  }

  TestCtx ctx_;
  TempFolder folder_;
};

TEST_F(CompareModels, NumbersAreThoseOfTheirDefinition) {
  constexpr SmallModel kLarge = {.layers = 1, .vocab = 600'000};  // tables that are read in several goes
  State a = small_state(kLarge);
  fill(a);
  save(a, "a");
  State b = small_state(kLarge);
  for (int param = 0; param < b.size(); ++param)
    std::memcpy(b.weight(param).data, a.weight(param).data, a.weight(param).bytes());
  const int head = b.size() - 1;
  const int64_t n = b.weight(head).elements();
  double sum = 0, squares = 0, squares_of_a = 0, largest = 0;
  int64_t differing = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double x = a.weight(head).as<float>()[i];
    if (i % 7 == 3 || i == n - 1) b.weight(head).as<float>()[i] += 0.001f * static_cast<float>(i % 1000);
    const double difference = std::abs(b.weight(head).as<float>()[i] - x);
    differing += difference != 0;
    largest = std::max(largest, difference);
    sum += difference;
    squares += difference * difference;
    squares_of_a += x * x;
  }
  save(b, "b");
  const std::vector<ComparedTensor> tensors = compare(kLarge, kLarge);
  for (const ComparedTensor& tensor : tensors) EXPECT_EQ(tensor.is_same(), tensor.name != "lm_head.weight");
  const ComparedTensor& found = named(tensors, "lm_head.weight");
  EXPECT_EQ(found.differing, differing);
  EXPECT_EQ(found.largest, largest);
  EXPECT_NEAR(found.mean, sum / static_cast<double>(n), 1e-12 * found.mean);
  EXPECT_NEAR(found.relative, std::sqrt(squares / squares_of_a), 1e-12 * found.relative);
}

TEST_F(CompareModels, TheSameNumbersInAnotherTypeAreNotTheSameBits) {
  State state = small_state();
  fill(state, DType::kBF16);
  save(state, "a");
  save(state, "b", DType::kBF16);
  for (const ComparedTensor& tensor : compare()) {
    EXPECT_FALSE(tensor.is_same());
    EXPECT_TRUE(tensor.is_compared());
    EXPECT_EQ(tensor.differing, 0);
    EXPECT_EQ(tensor.relative, 0);
    EXPECT_EQ(tensor.b->dtype, DType::kBF16);
  }
}

TEST_F(CompareModels, ZerosHaveASignAndNoSize) {
  State state = small_state();
  fill(state);
  const int norm = state.size() - 2, head = state.size() - 1;
  for (const int param : {norm, head}) std::fill_n(state.weight(param).as<float>(), state.weight(param).elements(), 0);
  save(state, "a");
  state.weight(norm).as<float>()[2] = -0.0f;
  state.weight(head).as<float>()[2] = 1;
  save(state, "b");
  const std::vector<ComparedTensor> tensors = compare();
  EXPECT_EQ(named(tensors, "model.norm.weight").differing, 1);
  EXPECT_EQ(named(tensors, "model.norm.weight").largest, 0);
  EXPECT_EQ(named(tensors, "model.norm.weight").relative, 0);
  EXPECT_TRUE(std::isinf(named(tensors, "lm_head.weight").relative));
}

TEST_F(CompareModels, WhatOneLacksOrHasInAnotherShape) {
  const SmallModel more = {.layers = 2, .vocab = 12}, less = {.layers = 1, .vocab = 10, .tied = true};
  State a = small_state(more), b = small_state(less);
  fill(a);
  fill(b);
  save(a, "a");
  save(b, "b");
  std::vector<ComparedTensor> tensors = compare(more, less);
  EXPECT_TRUE(named(tensors, "model.norm.weight").is_same());
  EXPECT_FALSE(named(tensors, "model.embed_tokens.weight").is_compared());
  EXPECT_FALSE(named(tensors, "lm_head.weight").b);
  EXPECT_FALSE(named(tensors, "model.layers.1.block_sparse_moe.gate.weight").b);
  std::filesystem::rename(folder_ / "a", folder_ / "c");
  std::filesystem::rename(folder_ / "b", folder_ / "a");
  std::filesystem::rename(folder_ / "c", folder_ / "b");
  tensors = compare(less, more);
  EXPECT_FALSE(named(tensors, "lm_head.weight").a);
  EXPECT_TRUE(named(tensors, "lm_head.weight").b);
}

TEST_F(CompareModels, WhatIsNotFiniteIsRefused) {
  State state = small_state();
  fill(state);
  save(state, "a");
  std::filesystem::copy(folder_ / "a", folder_ / "b");
  std::string file = get(folder_ / "b/model.safetensors");
  const uint64_t begin = SafetensorsFile(folder_ / "b/model.safetensors").find("lm_head.weight")->begin;
  for (int i = 0; i < 4; ++i) file[begin + i] = '\xff';
  put(folder_ / "b/model.safetensors", file);
  expect_user_error([&] { compare(); }, {"b/model.safetensors: tensor 'lm_head.weight' holds NaN or infinity"});
}

}  // namespace
}  // namespace mixtune
