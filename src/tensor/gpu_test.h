// GpuTest: a test that needs a GPU.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>

#include "tensor/device.h"

namespace mixtune {

// How many GPUs this machine has, as MIXTUNE_REQUIRE_GPU says: tests that need no more must not be skipped.
inline int required_gpus() {
  const char* text = std::getenv("MIXTUNE_REQUIRE_GPU");
  return text ? std::atoi(text) : 0;
}

// For SetUp: skips the test where fewer than `needed` GPUs are `found`, or fails it where they are required.
inline void need_gpus(int needed, int found) {
  if (found >= needed) return;
  if (needed <= required_gpus())
    FAIL() << "found " << found << " GPUs of the " << required_gpus() << " of MIXTUNE_REQUIRE_GPU";
  GTEST_SKIP() << (needed == 1 ? "skipped: no GPU" : "skipped: not enough GPUs");
}

class GpuTest : public testing::Test {
 protected:
  void SetUp() override { need_gpus(1, gpu_count()); }
};

}  // namespace mixtune
