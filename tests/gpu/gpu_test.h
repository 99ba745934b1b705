// A test that needs a GPU.
#pragma once

#include <gtest/gtest.h>

#include "tensor/device.h"

namespace mixtune {

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (gpu_count() == 0) GTEST_SKIP() << "skipped: no GPU";
  }
};

}  // namespace mixtune
