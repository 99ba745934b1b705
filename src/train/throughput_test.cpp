#include "train/throughput.h"

#include <gtest/gtest.h>

#include "train/testing.h"

namespace mixtune {
namespace {

InstanceOptions in(DType weights, const RecipeOptions& recipe = {}) {
  return {.types = StateTypes::all(weights), .recipe = recipe};
}

constexpr RecipeOptions kCodes = {.eight_bit = EightBitScaling::kBlock, .multiplies_codes = true},
                        kRounded = {.eight_bit = EightBitScaling::kTensor};

TEST(Peak, IsOfTheFormatThatProductsRunIn) {
  EXPECT_EQ(peak_of("NVIDIA H200", in(DType::kBF16)).name, "989 TFLOP/s, bf16 dense, H200");
  EXPECT_EQ(peak_of("NVIDIA H200", in(DType::kBF16, kCodes)).name, "1,979 TFLOP/s, fp8 dense, H200");
  EXPECT_EQ(peak_of("NVIDIA H200", in(DType::kBF16, kCodes)).tflops, 1979);
  EXPECT_EQ(peak_of("NVIDIA H200", in(DType::kBF16, kRounded)).tflops, 989);
}

TEST(Peak, IsNotToldWhereItIsNotKnown) {
  EXPECT_EQ(peak_of("NVIDIA H200", in(DType::kF32)).tflops, 0);
  EXPECT_EQ(peak_of("NVIDIA A100-SXM4-80GB", in(DType::kBF16, kCodes)).tflops, 0);
  EXPECT_EQ(peak_of("a card to come", in(DType::kBF16)).name, "");
}

TEST(Throughput, IsOfTheStepsDocumentsAndTime) {
  const TestModel model(testing_config(), DType::kF32);
  const Throughput throughput(model);
  EXPECT_EQ(throughput.peak().tflops, 0);  // of a CPU
  StepRecord record;
  throughput.set(record, {.live_tokens = 8, .squared_lengths = 34}, 0.5);
  EXPECT_EQ(record.milliseconds, 500);
  EXPECT_EQ(record.tokens_per_second, 16);
  // 24 hidden, 32 ffn, 37 tokens of the vocabulary, 2 layers, 4 heads of 6, 2 of them with keys and values, 2 experts
  const double weights = 2 * (24 * 48 + 24 * 24 + 2 * 3 * 24 * 32) + 37 * 24;
  EXPECT_DOUBLE_EQ(record.model_tflops, (8 * 6 * weights + 17 * 3 * 2 * 4 * 24) / 0.5 / 1e12);
  EXPECT_EQ(record.mfu, 0);
}

}  // namespace
}  // namespace mixtune
