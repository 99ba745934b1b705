#include "model/expert_bias.h"

#include <gtest/gtest.h>

#include <fstream>
#include <utility>
#include <vector>

#include "base/json_value.h"
#include "base/test_paths.h"

namespace mixtune {
namespace {

MixtralConfig biased(std::vector<float> bias) {
  MixtralConfig config;
  config.num_hidden_layers = 2;
  config.num_local_experts = 3;
  config.expert_bias = std::move(bias);
  return config;
}

TEST(ExpertBias, IsNoneWithoutOne) {
  const ExpertBias none(biased({}), Device{});
  EXPECT_FALSE(none);
  EXPECT_TRUE(none.values().empty());
  EXPECT_TRUE(none.ranges().empty());
}

// In fp32, as torch adds and multiplies: three steps of 0.001 are not 0.003 exactly.
TEST(ExpertBias, MovesTowardsTheMeanOfItsLayer) {
  ExpertBias bias(biased({0, 0, 0, 0.5F, 0.25F, 0}), Device{});
  float up = 0, down = 0;
  for (int step = 0; step < 3; ++step) {
    bias.move({{4, 2, 0}, {5, 5, 5}}, 1e-3);
    up += 1e-3F;
    down -= 1e-3F;
  }
  const std::vector<float> expected = {down, 0, up, 0.5F, 0.25F, 0};
  EXPECT_EQ(std::vector<float>(bias.values().begin(), bias.values().end()), expected);
  EXPECT_EQ(bias.ranges(), (std::vector<double>{static_cast<double>(up) - down, 0.5}));
  bias.move({{0, 0, 1}, {0, 0, 0}}, 0.25);  // a mean that is no whole number
  EXPECT_EQ(bias.values()[0], down + 0.25F);
  EXPECT_EQ(bias.values()[1], 0.25F);
  EXPECT_EQ(bias.values()[2], up - 0.25F);
  EXPECT_EQ(bias.values()[5], 0);
}

// scripts/make_router_fixtures.py has run Megatron-Core's get_updated_expert_bias.
TEST(ExpertBias, MovesAsMegatronCoresDoes) {
  std::ifstream file(source_path("tests/fixtures/router.json"));
  const auto cases = nlohmann::json::parse(file).at("biased");
  ASSERT_FALSE(cases.empty());
  for (const auto& json : cases) {
    MixtralConfig config;
    config.num_hidden_layers = 1;
    config.num_local_experts = json.at("experts");
    config.expert_bias = json.at("bias").get<std::vector<float>>();
    ExpertBias bias(config, Device{});
    bias.move({json.at("counts").get<std::vector<int64_t>>()}, json.at("rate"));
    EXPECT_EQ(std::vector<float>(bias.values().begin(), bias.values().end()),
              json.at("updated").get<std::vector<float>>());
  }
}

TEST(ExpertBias, IsOnTheDeviceAsItWasUploaded) {
  Stack stack("stack", Device{}, 64);
  Ctx ctx{Device{}, stack, stack};
  ExpertBias bias(biased({1, 2, 3, 4, 5, 6}), Device{});
  bias.upload(ctx);
  bias.move({{0, 0, 9}, {1, 1, 1}}, 1);
  EXPECT_EQ(bias.on_device().shape, (Shape{2, 3}));
  EXPECT_EQ(bias.on_device().as<float>()[0], 1);
  bias.upload(ctx);
  EXPECT_EQ(bias.on_device().as<float>()[0], 2);
  EXPECT_EQ(bias.on_device().as<float>()[2], 2);
}

}  // namespace
}  // namespace mixtune
