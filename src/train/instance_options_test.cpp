#include "train/instance_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/load.h"

namespace mixtune {
namespace {

InstanceOptions options(const std::string& text) {
  return instance_options(parse_config(text, "run.yaml"), State::Purpose::kTraining);
}

std::string refusal(const std::string& text) {
  try {
    options(text);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

TEST(InstanceOptions, TheCpuComputesInFp32) {
  EXPECT_EQ(options("device: cpu\n").device.type, DeviceType::kCpu);
  EXPECT_NE(refusal("device: cpu\nprecision: bf16\n").find("run.yaml:2: precision: bf16 needs a GPU"),
            std::string::npos);
}

TEST(InstanceOptions, AnInferenceHasThePrecisionOfTheWeightsUnlessItNamesOne) {
  const auto chosen = [](const std::string& text, const std::string& dtype, DeviceType device) {
    Config config = parse_config("seed: 7\n" + text, "run.yaml");
    choose_precision(config, {.dtype = dtype}, device);
    return config.compute.precision;
  };
  EXPECT_EQ(chosen("", "bfloat16", DeviceType::kCuda), Precision::kBf16);
  EXPECT_EQ(chosen("", "float32", DeviceType::kCuda), Precision::kFp32);
  EXPECT_EQ(chosen("", "float16", DeviceType::kCuda), Precision::kFp32);
  EXPECT_EQ(chosen("", "", DeviceType::kCuda), Precision::kFp32);
  EXPECT_EQ(chosen("", "bfloat16", DeviceType::kCpu), Precision::kFp32);
  EXPECT_EQ(chosen("precision: fp32\n", "bfloat16", DeviceType::kCuda), Precision::kFp32);
  EXPECT_EQ(chosen("precision: fp8\n", "bfloat16", DeviceType::kCuda), Precision::kFp8);
}

TEST(InstanceOptions, GraphsAreOfFixedShapesOnOneGpu) {
  const auto planned = [](const std::string& text, int world) -> std::string {
    Ranks ranks = make_ranks(make_single_communicator(), {});
    ranks.grid.world = world;
    try {
      const Config config = parse_config("cuda_graphs: true\n" + text, "run.yaml");
      return planned_options(config, ranks).cuda_graphs ? "" : "no graphs";
    } catch (const UserError& error) {
      return error.what();
    }
  };
  const std::string padded = "moe_expert_capacity_factor: 1\nmoe_pad_expert_input_to_capacity: true\n";
  EXPECT_EQ(planned(padded, 1), "");
  EXPECT_THAT(planned("", 1), testing::HasSubstr("run.yaml:1: cuda_graphs: the host waits"));
  EXPECT_THAT(planned("", 1), testing::HasSubstr("set moe_pad_expert_input_to_capacity"));
  EXPECT_THAT(planned(padded, 2), testing::HasSubstr("run.yaml:1: cuda_graphs: a graph of what ranks exchange"));
  EXPECT_THAT(planned("", 2), testing::HasSubstr("run.yaml:1: cuda_graphs: a graph of what ranks exchange"));
  EXPECT_THAT(refusal("cuda_graphs: true\ndevice: cpu\n" + padded),
              testing::HasSubstr("run.yaml:1: cuda_graphs: the device is the CPU"));
}

class CountedProgress : public RankProgress {
 public:
  int64_t advanced = 0;

  void set_step(int64_t) override {}
  void set_activity(const char*) override {}
  void advance() override { ++advanced; }
  void enter(const char*) override {}
  void leave() override {}
};

TEST(InstanceOptions, WhatAGpuHasDoneIsToldToThoseWhoWatchTheRank) {
  CountedProgress progress;
  Ranks ranks = make_ranks(make_single_communicator(), {});
  const Config config = parse_config("device: cpu\n", "run.yaml");
  const InstanceOptions watched = instance_options(config, State::Purpose::kTraining, ranks);
  watched.gpu.advanced();
  ranks.progress = &progress;
  watched.gpu.advanced();
  EXPECT_EQ(progress.advanced, 1);
}

TEST(InstanceOptions, CudaWhereThereIsNone) {
  if (gpu_count() > 0) GTEST_SKIP() << "there is a GPU";
  EXPECT_EQ(options("device: auto\n").device.type, DeviceType::kCpu);
  EXPECT_NE(refusal("device: cuda\n").find("run.yaml:1: device"), std::string::npos);
}

TEST(InstanceOptions, KeysOfBf16AreRefusedInFp32) {
  for (const char* key : {"gradient_dtype: bf16", "optimizer_state_dtype: bf16", "master_weights: none"})
    EXPECT_NE(refusal(std::string("device: cpu\n") + key + "\n").find("precision: bf16"), std::string::npos) << key;
}

TEST(InstanceOptions, EightBitProducts) {
  const RecipeOptions mx = options("device: cpu\nprecision: mxfp8\n").recipe,
                      fp8 = options("device: cpu\nprecision: fp8\nfp8_power_of_two_scales: false\n").recipe,
                      tensor = options("device: cpu\nprecision: fp8\nfp8_scaling: tensor\n").recipe;
  EXPECT_EQ(mx.eight_bit, EightBitScaling::kMx);
  EXPECT_EQ(fp8.eight_bit, EightBitScaling::kBlock);
  EXPECT_FALSE(fp8.power_of_two_scales);
  EXPECT_EQ(tensor.eight_bit, EightBitScaling::kTensor);
  EXPECT_EQ(options("device: cpu\n").recipe.eight_bit, std::nullopt);
  EXPECT_EQ(options("device: cpu\nprecision: fp8\n").types, StateTypes::all(DType::kF32));
}

// A GPU has bf16 beside them, and all of bf16's keys.
TEST(InstanceOptions, EightBitProductsOnAGpu) {
  for (const std::string precision : {"fp8", "mxfp8"}) {
    const InstanceOptions plain = planned_options(parse_config("precision: " + precision + "\n", "run.yaml")),
                          narrow = planned_options(parse_config(
                              "precision: " + precision + "\nmaster_weights: none\noptimizer_state_dtype: bf16\n",
                              "run.yaml"));
    EXPECT_EQ(plain.types, (StateTypes{.weights = DType::kBF16, .masters = true})) << precision;
    EXPECT_EQ(narrow.types, (StateTypes{.weights = DType::kBF16, .moments = DType::kBF16})) << precision;
    EXPECT_EQ(plain.recipe.multiplies_codes, precision == "fp8");
  }
  EXPECT_FALSE(planned_options(parse_config("precision: bf16\n", "run.yaml")).recipe.multiplies_codes);
}

// Products of codes by block are Hopper's alone, those of MX Blackwell's; all else is emulated.
TEST(InstanceOptions, ProductsOfCodesAreThoseOfTheDevice) {
  const auto recipe = [](const std::string& text, int compute_capability) {
    return recipe_options(parse_config(text, "run.yaml"), compute_capability);
  };
  for (const int gpu : {0, 80, 86, 89, 90, 100, 103, 110, 120, 121, 130}) {
    const bool hopper = gpu == 90, blackwell = gpu >= 100 && gpu < 130;
    const RecipeOptions mx = recipe("precision: mxfp8\n", gpu);
    EXPECT_EQ(recipe("precision: fp8\n", gpu).multiplies_codes, hopper) << gpu;
    EXPECT_EQ(recipe("precision: fp8\nfp8_power_of_two_scales: false\n", gpu).multiplies_codes, hopper) << gpu;
    EXPECT_EQ(mx.multiplies_codes, blackwell) << gpu;
    EXPECT_EQ(untried(mx).empty(), !blackwell) << gpu;
    EXPECT_EQ(untried(recipe("precision: fp8\n", gpu)), "");
    for (const char* precision : {"precision: fp8\nfp8_scaling: tensor\n", "precision: bf16\n", "precision: fp32\n"})
      EXPECT_FALSE(recipe(precision, gpu).multiplies_codes) << gpu;
    EXPECT_EQ(mx.eight_bit, EightBitScaling::kMx);
  }
}

TEST(InstanceOptions, KeysOfFp8AreRefusedInOthers) {
  for (const std::string precision : {"fp32", "mxfp8"})
    for (const std::string key : {"fp8_scaling: tensor", "fp8_power_of_two_scales: false"})
      EXPECT_NE(refusal("device: cpu\nprecision: " + precision + "\n" + key + "\n").find("run.yaml:3: fp8_"),
                std::string::npos)
          << key;
}

TEST(InstanceOptions, Bf16GradientsDoNotAccumulate) {
  EXPECT_NE(refusal("precision: bf16\ngradient_dtype: bf16\ngradient_accumulation_steps: 2\n")
                .find("run.yaml:2: gradient_dtype"),
            std::string::npos);
}

}  // namespace
}  // namespace mixtune
