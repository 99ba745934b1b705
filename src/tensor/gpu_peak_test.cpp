#include "tensor/gpu_peak.h"

#include <gtest/gtest.h>

namespace mixtune {
namespace {

TEST(GpuPeak, IsTheCardsOwn) {
  for (const char* name : {"NVIDIA H200", "NVIDIA H100 80GB HBM3"}) {
    ASSERT_NE(gpu_peak(name), nullptr) << name;
    EXPECT_EQ(gpu_peak(name)->bf16, 989);
    EXPECT_EQ(gpu_peak(name)->fp8, 1979);
  }
  EXPECT_EQ(gpu_peak("NVIDIA H200 NVL")->bf16, 835);
  EXPECT_EQ(gpu_peak("NVIDIA A100-SXM4-80GB")->bf16, 312);
  EXPECT_EQ(gpu_peak("NVIDIA A100-SXM4-80GB")->fp8, 0);
}

TEST(GpuPeak, OfAnotherCardNoneIsKnown) {
  for (const char* name : {"", "CPU", "NVIDIA", "NVIDIA H100", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H200 ",
                           "NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 Laptop GPU", "nvidia h200"})
    EXPECT_EQ(gpu_peak(name), nullptr) << name;
}

}  // namespace
}  // namespace mixtune
