// A base held as codes in a step: what they stand for, and nothing else, is computed with.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/eight_bit/quantise.h"
#include "train/testing.h"

namespace mixtune {
namespace {

const Lora kLora = {.rank = 8, .scale = 1.75, .q = true, .k = true, .v = true, .out = true, .experts = true};

InstanceOptions with_base(BasePrecision base, DType dtype) {
  Lora lora = kLora;
  lora.base = base;
  return {.types = StateTypes::all(dtype), .lora = lora};
}

// Gives each weight of `plain` what that of `coded` stands for. Returns how many were codes.
int decode(TestModel& coded, TestModel& plain) {
  int count = 0;
  for (int p = 0; p < coded.state().size(); ++p) {
    const Frame frame(coded.ctx());
    const WeightUse weight(coded.ctx(), coded.state(), p);
    const Tensor to = plain.state().weight(p);
    std::memcpy(to.data, (*weight).data, to.bytes());
    count += coded.state().is_coded(p);
  }
  plain.state().weights_changed();
  return count;
}

double step(TestModel& test, const Batch& batch) {
  Saved saved = test.model().make_saved();
  test.state().gradients().begin_step();
  const double loss = run_micro_batch(test.ctx(), test.model(), batch, saved,
                                      {.token_scale = 0.1, .router = {RouterLossType::kHuggingface, 0.02}})
                          .token_sum;
  test.state().gradients().finish(test.ctx());
  return loss;
}

std::string gradients_of(TestModel& test) {
  std::string bytes;
  for (int p = 0; p < test.state().size(); ++p)
    if (const Tensor gradient = test.state().gradients().finished(test.ctx(), p))
      bytes.append(static_cast<const char*>(gradient.data), gradient.bytes());
  return bytes;
}

// Nf4, fp8: what a weight takes, and what a normal one loses (docs/four-bit.md, docs/eight-bit.md).
struct Kind {
  BasePrecision base;
  double bytes, least_loss, largest_loss;
};
class CodedBase : public testing::TestWithParam<Kind> {};

TEST_P(CodedBase, StepsAsItsDequantisedWeights) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  for (const DType dtype : {DType::kF32, DType::kF64})
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      InstanceOptions as_codes = with_base(GetParam().base, dtype), plain = with_base(BasePrecision::kAuto, dtype);
      as_codes.recompute = plain.recompute = recompute;
      TestModel coded(config, as_codes), dequantised(config, plain);
      EXPECT_EQ(decode(coded, dequantised), 4 * config.num_hidden_layers);
      EXPECT_EQ(step(coded, data.batch()), step(dequantised, data.batch()));
      const std::string gradients = gradients_of(coded);
      EXPECT_FALSE(gradients.empty());
      EXPECT_TRUE(gradients == gradients_of(dequantised));
    }
}

TEST_P(CodedBase, IsNearWhatItWasMadeOf) {
  const MixtralConfig config = testing_config();
  const InstanceOptions plain = with_base(BasePrecision::kAuto, DType::kF32);
  TestModel coded(config, with_base(GetParam().base, DType::kF32)), exact(config, plain), made(config, plain);
  decode(coded, made);
  for (int p = 0; p < exact.state().size(); ++p) {
    const Tensor is = made.state().weight(p), was = exact.state().weight(p);
    double error = 0, size = 0;
    for (int64_t i = 0; i < was.elements(); ++i) {
      error += std::pow(double{is.as<float>()[i]} - was.as<float>()[i], 2);
      size += std::pow(double{was.as<float>()[i]}, 2);
    }
    const double share = std::sqrt(error / size);
    if (coded.state().is_coded(p)) {
      EXPECT_GT(share, GetParam().least_loss) << exact.state().spec(p).name;
      EXPECT_LT(share, GetParam().largest_loss) << exact.state().spec(p).name;
    } else {
      EXPECT_EQ(share, 0) << exact.state().spec(p).name;
    }
  }
}

TEST_P(CodedBase, TakesAFewBitsOfAWeight) {
  MixtralConfig config = testing_config();
  config.hidden_size = 256, config.intermediate_size = 512, config.head_dim = 64;
  const auto state = [&](BasePrecision base) {
    Lora lora;
    lora.base = base;
    return State(make_layout(config, {0, config.num_local_experts}, {}, lora).specs, {DeviceType::kMeta}, DType::kBF16,
                 State::Purpose::kInference);
  };
  const State coded = state(GetParam().base), plain = state(BasePrecision::kAuto);
  int64_t elements = 0;
  for (int p = 0; p < coded.size(); ++p)
    if (coded.is_coded(p)) elements += coded.spec(p).shape.elements();
  const double saved = static_cast<double>(plain.bytes()) - static_cast<double>(coded.bytes());
  EXPECT_NEAR(saved / static_cast<double>(elements), 2 - GetParam().bytes, 0.01);
}

INSTANTIATE_TEST_SUITE_P(, CodedBase,
                         testing::Values(Kind{BasePrecision::kNf4, 4.127 / 8, 0.07, 0.12},
                                         Kind{BasePrecision::kFp8, 1 + 4.0 / (128 * 128), 0.02, 0.03}),
                         [](const auto& kind) { return kind.param.base == BasePrecision::kNf4 ? "Nf4" : "Fp8"; });

// Each Hugging Face tensor is rounded by itself, as products in 8 bits round the weight that it is.
TEST(Fp8Base, IsTheBaseRoundedTensorByTensor) {
  const MixtralConfig config = testing_config();
  const InstanceOptions plain = with_base(BasePrecision::kAuto, DType::kF32);
  TestModel coded(config, with_base(BasePrecision::kFp8, DType::kF32)), made(config, plain), rounded(config, plain);
  decode(coded, made);
  for (int p = 0; p < coded.state().size(); ++p) {
    if (!coded.state().is_coded(p)) continue;
    const Tensor weight = rounded.state().weight(p), values = weight.view({weight.elements()});
    for (const HfBlock& block : coded.state().spec(p).blocks) {
      const Tensor matrix = values.slice(block.offset, block.elements()).view(block.shape());
      const EightBits bits = {.blocks = {kScaleBlock, kScaleBlock}, .scale = ScaleRule::kPowerOfTwo};
      round_operand(rounded.ctx(), {.x = matrix, .y = matrix, .bits = bits, .live = matrix.rows()});
    }
    EXPECT_EQ(std::memcmp(weight.data, made.state().weight(p).data, weight.bytes()), 0) << coded.state().spec(p).name;
  }
}

}  // namespace
}  // namespace mixtune
