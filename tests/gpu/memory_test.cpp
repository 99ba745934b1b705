// The content of a GPU's memory when it is new, and how long the host waits for work that uses it.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "gpu/training.h"
#include "tensor/fence.h"
#include "tensor/gpu_test.h"

namespace mixtune {
namespace {

class GpuMemory : public GpuTest {
 protected:
  static constexpr int64_t kPage = 1024;  // elements

  // The last page, of floats, of `memory`.
  static Tensor last_page(const Memory& memory) {
    return {memory.data() + memory.bytes() - kPage * sizeof(float), {kPage}, DType::kF32, kGpu};
  }
  Tensor page(float value) {
    const Tensor tensor = session_->pinned.push("a page", {kPage}, DType::kF32);
    std::fill_n(tensor.as<float>(), kPage, value);
    return tensor;
  }

  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped()) session_ = std::make_unique<Session>();
  }

  struct Session {
    GpuOptions options = {.patience = 0.2, .give_up = [](const std::string& why) {
                            throw std::runtime_error(why);
                          }};
    std::shared_ptr<Gpu> gpu = make_gpu(kGpu, {}), impatient = make_gpu(kGpu, options);
    Stack stack{"test", kGpu, 1 << 20};
    Stack pinned{"test", {}, 1 << 20, HostMemory::kPinned};
    Ctx ctx{kGpu, stack, pinned, gpu.get()}, impatient_ctx{kGpu, stack, pinned, impatient.get()};
  };
  std::unique_ptr<Session> session_;
};

// A GPU takes some 10 ms to zero this much: work that is put on a stream meanwhile must come after it.
TEST_F(GpuMemory, IsZeroBeforeAnyStreamUsesIt) {
  constexpr int kTimes = 10;
  Ctx& ctx = session_->ctx;
  const size_t bytes = std::min(size_t{40} << 30, available_memory(kGpu) / 2);
  const Tensor written = page(7), fresh = page(-1), read = page(-1);
  int lost = 0, not_zero = 0;
  for (int i = 0; i < kTimes; ++i) {
    const Memory memory("test", kGpu, bytes);
    copy(ctx, last_page(memory), fresh);
    copy(ctx, written, last_page(memory));
    copy(ctx, last_page(memory), read);
    wait(ctx);
    { const Memory freed("waits for all that runs on the GPU", kGpu, 1); }
    copy(ctx, last_page(memory), read);
    wait(ctx);
    not_zero += std::count(fresh.as<float>(), fresh.as<float>() + kPage, 0.0f) != kPage;
    lost += std::count(read.as<float>(), read.as<float>() + kPage, 7.0f) != kPage;
  }
  EXPECT_EQ(lost, 0) << "of " << kTimes << " writes";
  EXPECT_EQ(not_zero, 0) << "of " << kTimes << " arenas, of which all but the first were written before";
}

// The GPU has seconds of work, the host a fifth of a second of patience.
TEST_F(GpuMemory, AFenceIsNotWaitedForLongerThanPatience) {
  Ctx& ctx = session_->impatient_ctx;
  const size_t bytes = std::min(size_t{40} << 30, available_memory(kGpu) / 2);
  const Memory memory("test", kGpu, bytes);
  const Tensor all = {memory.data(), {static_cast<int64_t>(memory.bytes())}, DType::kU8, kGpu};
  {
    Fence fence;
    for (int i = 0; i < 200; ++i) zero(ctx, all);
    fence.set(ctx);
    EXPECT_THROW(fence.wait(), std::runtime_error);
  }
  Fence fence;
  fence.set(session_->ctx);
  fence.wait();
}

}  // namespace
}  // namespace mixtune
