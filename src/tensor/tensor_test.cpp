#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "tensor/ctx.h"
#include "tensor/out_of_memory.h"

namespace mixtune {
namespace {

TEST(Tensor, SliceRowView) {
  float data[12];
  for (int i = 0; i < 12; ++i) data[i] = static_cast<float>(i);
  const Tensor t = host_tensor(data, {3, 2, 2});
  EXPECT_EQ(t.slice(1, 2).as<float>()[0], 4);
  EXPECT_EQ(t.slice(1, 2).shape, Shape({2, 2, 2}));
  EXPECT_EQ(t.row(2).shape, Shape({2, 2}));
  EXPECT_EQ(t.row(2).as<float>()[3], 11);
  EXPECT_EQ(t.view({4, 3}).shape.str(), "[4, 3]");
  EXPECT_THROW(t.slice(2, 2), std::logic_error);
  EXPECT_THROW(t.view({5}), std::logic_error);
  EXPECT_THROW(t.as<double>(), std::logic_error);
}

TEST(Stack, FramesReleaseAndPeakStays) {
  Stack stack("activations", {}, 1 << 20);
  const size_t start = stack.mark();
  {
    Stack::Frame frame(stack);
    const Tensor a = stack.push("a", {3}, DType::kF32);
    const Tensor b = stack.push("b", {3}, DType::kF32);
    EXPECT_EQ(static_cast<char*>(b.data) - static_cast<char*>(a.data), static_cast<ptrdiff_t>(kAlignment));
  }
  EXPECT_EQ(stack.mark(), start);
  EXPECT_EQ(stack.peak(), 2 * kAlignment);
}

TEST(Stack, PoisonsWhatItReleases) {
  Stack stack("activations", {}, 1 << 20);
  std::vector<std::pair<void*, size_t>> poisoned;
  stack.poison_with([&](void* data, size_t bytes) { poisoned.emplace_back(data, bytes); });
  stack.push("kept", {3}, DType::kF32);
  const size_t mark = stack.mark();
  const Tensor a = stack.push("a", {100}, DType::kF32);
  stack.push("b", {1}, DType::kF32);
  stack.release(mark);
  stack.release(mark);
  ASSERT_EQ(poisoned.size(), 1u);
  EXPECT_EQ(poisoned[0], (std::pair<void*, size_t>(a.data, align_up(400) + kAlignment)));
}

TEST(Stack, ReleasedMemoryIsNaNWhereItIsPoisoned) {
  Stack stack("activations", {}, 1 << 20);
  const Tensor a = stack.push("a", {4}, DType::kF32);
  a.as<float>()[3] = 1;
  stack.release(0);
  EXPECT_EQ(std::isnan(a.as<float>()[3]), poisons_released_memory());
}

TEST(Stack, FullNamesTheAllocation) {
  Stack stack("activations", {}, 4096);
  try {
    stack.push("gate_up", {1 << 20}, DType::kF32);
    FAIL();
  } catch (const OutOfMemory& error) {
    EXPECT_NE(std::string(error.what()).find("gate_up needs 4.0 MiB"), std::string::npos) << error.what();
  }
}

TEST(Arena, ZeroedNamedAndBounded) {
  Arena arena("weights", {}, 8192);
  const Tensor t = arena.allocate("w", {16}, DType::kF32);
  EXPECT_EQ(t.as<float>()[15], 0);
  EXPECT_EQ(arena.allocations().at(0).name, "w");
  EXPECT_THROW(arena.allocate("x", {4096}, DType::kF32), Error);
}

}  // namespace
}  // namespace mixtune
