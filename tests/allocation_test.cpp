// Nothing is allocated inside a step after the first: every call of operator new is counted. (What is not ours is not
// seen: oneDNN's products take scratch by posix_memalign. And the first step of an epoch plans it.)
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "base/test_paths.h"
#include "config/load.h"
#include "train/trainer.h"

namespace {

std::atomic<int64_t> allocations{0};

void* allocate(size_t bytes, size_t alignment) {
  ++allocations;
  void* p = nullptr;
  if (posix_memalign(&p, alignment, bytes) != 0) throw std::bad_alloc();
  return p;
}

}  // namespace

void* operator new(size_t bytes) {
  return allocate(bytes, alignof(std::max_align_t));
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<size_t>(alignment));
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t, std::align_val_t) noexcept {
  std::free(p);
}

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
    const int64_t before = allocations;
    trainer.step(step);
    EXPECT_EQ(allocations - before, 0) << "step " << step;
    EXPECT_EQ(trainer.instance().ctx().stack.mark(), mark);
  }
}

}  // namespace
}  // namespace mixtune
