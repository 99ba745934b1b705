#include "job/own_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "base/error.h"
#include "parallel/testing.h"

namespace mixtune {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

// The error of each rank, where rank r has GPU gpus[r].
std::vector<std::string> errors_of(const std::vector<OwnGpu>& gpus) {
  MemoryStore store(std::chrono::seconds(10));
  std::vector<std::future<std::string>> ranks;
  const int size = static_cast<int>(gpus.size());
  for (int rank = 0; rank < size; ++rank)
    ranks.push_back(std::async(std::launch::async, [&, rank]() -> std::string {
      try {
        check_own_gpu(store, rank, size, gpus[static_cast<size_t>(rank)]);
        return "";
      } catch (const UserError& error) {
        return error.what();
      }
    }));
  std::vector<std::string> errors;
  for (auto& rank : ranks) errors.push_back(rank.get());
  return errors;
}

TEST(OwnGpu, OfEachRank) {
  EXPECT_THAT(errors_of({{"a", "GPU 1 of node"}, {"b", "GPU 2 of node"}, {"c", "GPU 1 of other"}}), Each(""));
  EXPECT_THAT(errors_of({{"a", "GPU 1 of node"}}), Each(""));
}

TEST(OwnGpu, SlicesOfOneGpuAreGpus) {
  EXPECT_THAT(errors_of({{"MIG 1", "GPU 1 of node"}, {"MIG 2", "GPU 1 of node"}}), Each(""));
}

TEST(OwnGpu, TwoRanksOnOne) {
  EXPECT_THAT(
      errors_of({{"a", "GPU 1 of node"}, {"b", "GPU 2 of node"}, {"c", "GPU 3 of node"}, {"b", "GPU 2 of node"}}),
      Each(AllOf(HasSubstr("ranks 1 and 3 both compute on GPU 2 of node"), HasSubstr("one rank for each GPU"))));
}

// Containers of one machine may call themselves differently.
TEST(OwnGpu, TwoRanksOnOneThatTheyNameDifferently) {
  EXPECT_THAT(errors_of({{"a", "GPU 1 of pod-0"}, {"a", "GPU 1 of pod-1"}}),
              Each(HasSubstr("ranks 0 and 1 both compute on GPU 1 of pod-1")));
}

TEST(OwnGpu, IsNotKnown) {
  EXPECT_THAT(errors_of({{"", "GPU 1 of node"}, {"", "GPU 1 of node"}}), Each(""));
}

}  // namespace
}  // namespace mixtune
