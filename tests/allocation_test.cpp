// Inside a step after the first, nothing is allocated: the test counts every call of operator new. (It does not see
// other code's: oneDNN's products take scratch by posix_memalign. And the first step of an epoch plans it.)
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/count_allocations.h"
#include "base/test_paths.h"
#include "config/load.h"
#include "train/trainer.h"

namespace mixtune {
namespace {

TEST(Allocation, NoneInsideAStepAfterTheFirst) {
  const std::string folder = source_path("tests/fixtures/hf/sharded_bf16");
  const std::string out = std::filesystem::temp_directory_path() / fmt::format("mixtune-allocation-{}", getpid());
  const Config config = load_config(folder + "/train.yaml", {{"model_name_or_path", folder},
                                                             {"train_file", folder + "/train.jsonl"},
                                                             {"output_dir", out},
                                                             {"data_cache", "off"}});
  Trainer trainer(config);
  ASSERT_GE(trainer.total_steps(), 5);
  trainer.step(1);
  const size_t mark = trainer.instance().ctx().stack.mark();
  for (int64_t step = 2; step <= trainer.total_steps(); ++step) {
    const int64_t before = allocation_count().made;
    trainer.step(step);
    EXPECT_EQ(allocation_count().made, before) << "step " << step;
    EXPECT_EQ(trainer.instance().ctx().stack.mark(), mark);
  }
}

}  // namespace
}  // namespace mixtune
