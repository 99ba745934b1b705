// A base in 4 bits in a step: what its codes stand for, and nothing else, is computed with.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "train/testing.h"

namespace mixtune {
namespace {

const Lora kLora = {.rank = 3, .scale = 1.75, .q = true, .k = true, .v = true, .out = true, .experts = true};

InstanceOptions with_base(bool in_four_bits, DType dtype) {
  Lora lora = kLora;
  lora.base_in_four_bits = in_four_bits;
  return {.types = StateTypes::all(dtype), .lora = lora};
}

// Gives each weight of `plain` what that of `coded` stands for. Returns how many were in 4 bits.
int decode(TestModel& coded, TestModel& plain) {
  int count = 0;
  for (int p = 0; p < coded.state().size(); ++p) {
    const Frame frame(coded.ctx());
    const WeightUse weight(coded.ctx(), coded.state(), p);
    const Tensor to = plain.state().weight(p);
    std::memcpy(to.data, (*weight).data, to.bytes());
    count += coded.state().in_four_bits(p);
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

TEST(FourBitBase, StepsAsItsDequantisedWeights) {
  const MixtralConfig config = testing_config();
  const TestData data(config.vocab_size, {9, 23, 70});
  for (const DType dtype : {DType::kF32, DType::kF64})
    for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
      InstanceOptions in_four_bits = with_base(true, dtype), plain = with_base(false, dtype);
      in_four_bits.recompute = plain.recompute = recompute;
      TestModel coded(config, in_four_bits), dequantised(config, plain);
      EXPECT_EQ(decode(coded, dequantised), 4 * config.num_hidden_layers);
      EXPECT_EQ(step(coded, data.batch()), step(dequantised, data.batch()));
      const std::string gradients = gradients_of(coded);
      EXPECT_FALSE(gradients.empty());
      EXPECT_TRUE(gradients == gradients_of(dequantised));
    }
}

// Near what they were made of: 9% of a normal weight's deviation (docs/four-bit.md).
TEST(FourBitBase, IsNearWhatItWasMadeOf) {
  const MixtralConfig config = testing_config();
  TestModel coded(config, with_base(true, DType::kF32)), exact(config, with_base(false, DType::kF32)),
      made(config, with_base(false, DType::kF32));
  decode(coded, made);
  for (int p = 0; p < exact.state().size(); ++p) {
    const Tensor is = made.state().weight(p), was = exact.state().weight(p);
    double error = 0, size = 0;
    for (int64_t i = 0; i < was.elements(); ++i) {
      error += std::pow(double{is.as<float>()[i]} - was.as<float>()[i], 2);
      size += std::pow(double{was.as<float>()[i]}, 2);
    }
    const double share = std::sqrt(error / size);
    if (coded.state().in_four_bits(p)) {
      EXPECT_GT(share, 0.07) << exact.state().spec(p).name;
      EXPECT_LT(share, 0.12) << exact.state().spec(p).name;
    } else {
      EXPECT_EQ(share, 0) << exact.state().spec(p).name;
    }
  }
}

TEST(FourBitBase, TakesAFewBitsOfAWeight) {
  MixtralConfig config = testing_config();
  config.hidden_size = 256, config.intermediate_size = 512, config.head_dim = 64;
  const auto state = [&](bool in_four_bits) {
    Lora lora;
    lora.base_in_four_bits = in_four_bits;
    return State(make_layout(config, {0, config.num_local_experts}, {}, lora).specs, {DeviceType::kMeta}, DType::kBF16,
                 State::Purpose::kInference);
  };
  const State coded = state(true), plain = state(false);
  int64_t elements = 0;
  for (int p = 0; p < coded.size(); ++p)
    if (coded.in_four_bits(p)) elements += coded.spec(p).shape.elements();
  const double saved = static_cast<double>(plain.bytes()) - static_cast<double>(coded.bytes());
  EXPECT_NEAR(saved / static_cast<double>(elements), 2 - 4.127 / 8, 0.01);
}

}  // namespace
}  // namespace mixtune
