// Nothing is allocated inside a step after the first: calls of operator new are counted.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "data/loader.h"
#include "state/adamw.h"
#include "train/testing.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  void* p = std::malloc(bytes);
  if (!p) throw std::bad_alloc();
  return p;
}
void operator delete(void* p) noexcept {
  std::free(p);
}
void operator delete(void* p, size_t) noexcept {
  std::free(p);
}

namespace mixtune {
namespace {

TEST(Allocation, NoneInsideAStepAfterTheFirst) {
  TestModel model(testing_config(), DType::kF32);
  Documents documents;
  for (int32_t d = 0; d < 40; ++d) {
    const std::vector<int32_t> ids(5 + 7 * (d % 9), d % 37);
    documents.append(ids, ids);
  }
  Loader loader(documents, {.max_seq_length = 64, .packing = true, .shuffle = true, .epochs = 1}, 2, 2);
  ASSERT_GE(loader.steps(), 3);
  Saved saved = model.model().make_saved();
  const OptimizerSettings settings;
  for (int64_t i = 0; i < loader.steps(); ++i) {
    const int64_t before = allocations;
    const size_t mark = model.ctx().stack.mark();
    model.state().begin_step();
    for (const Batch& batch : loader.load(i).micro_batches)
      forward_backward(model.ctx(), model.model(), batch, saved, {.token_scale = 0.1, .router_scale = 0.02});
    const double norm = gradient_norm(model.ctx(), model.state());
    adamw_step(model.ctx(), model.state(), settings,
               {.step = i + 1, .learning_rate = 1e-3, .grad_scale = clip_scale(norm, 1)});
    EXPECT_EQ(model.ctx().stack.mark(), mark);
    if (i > 0) {
      EXPECT_EQ(allocations - before, 0) << "step " << i;
    }
  }
}

}  // namespace
}  // namespace mixtune
