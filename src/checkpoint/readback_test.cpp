#include "checkpoint/readback.h"

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kChunkFloats = Readback::kChunkBytes / 4;

// All chunks in a row.
std::vector<float> read_all(Readback& readback) {
  std::vector<float> values;
  for (Tensor chunk = readback.next(); chunk; chunk = readback.next()) {
    EXPECT_GT(chunk.elements(), 0);
    EXPECT_LE(chunk.bytes(), static_cast<size_t>(Readback::kChunkBytes));
    values.insert(values.end(), chunk.as<float>(), chunk.as<float>() + chunk.elements());
  }
  return values;
}

TEST(ReadbackTest, GivesTheTensorsInOrder) {
  TestCtx ctx;
  std::vector<Buffer<float>> buffers;
  std::vector<Tensor> tensors;
  std::vector<float> expected;
  for (const int64_t n : {int64_t{7}, int64_t{0}, kChunkFloats, 2 * kChunkFloats + 3, int64_t{1}, int64_t{0}}) {
    Buffer<float>& buffer = buffers.emplace_back(Shape{1, n});
    for (int64_t i = 0; i < n; ++i) expected.push_back(buffer[i] = static_cast<float>(expected.size() % 65521));
    tensors.push_back(buffer);
  }
  for (const auto kind : {Readback::Buffers::kNone, Readback::Buffers::kTwo}) {
    Readback readback(ctx, kind);
    EXPECT_FALSE(readback.next());
    readback.start(tensors);
    EXPECT_TRUE(read_all(readback) == expected);
    EXPECT_FALSE(readback.next());
    readback.start(tensors);  // again
    EXPECT_TRUE(read_all(readback) == expected);
  }
}

TEST(ReadbackTest, CopiesNothingWithoutBuffers) {
  TestCtx ctx;
  Buffer<float> buffer({3, 5});
  Readback readback(ctx, Readback::Buffers::kNone);
  readback.start({buffer});
  EXPECT_EQ(readback.next().data, buffer.tensor().data);
}

TEST(ReadbackTest, NoTensors) {
  TestCtx ctx;
  Readback readback(ctx, Readback::Buffers::kTwo);
  readback.start({});
  EXPECT_FALSE(readback.next());
}

}  // namespace
}  // namespace mixtune
