// Which rank chooses for which. Tests on GPUs see choices sent and taken (gemm_plans_test, two_gpus_test).
#include "train/shared_plans.h"

#include <gtest/gtest.h>

namespace mixtune {
namespace {

TEST(SharedPlans, TheFirstRankOfAKindChooses) {
  EXPECT_EQ(choosers({"H200"}), std::vector<int>{0});
  EXPECT_EQ(choosers({"H200", "H200", "H200"}), (std::vector<int>{0, 0, 0}));
  EXPECT_EQ(choosers({"H100", "H200", "H100", "H200", "B200"}), (std::vector<int>{0, 1, 0, 1, 4}));
}

}  // namespace
}  // namespace mixtune
