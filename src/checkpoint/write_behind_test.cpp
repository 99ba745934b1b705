#include "checkpoint/write_behind.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <thread>

#include "kernels/testing.h"

namespace mixtune {
namespace {

constexpr int64_t kChunkFloats = WriteBehind::kChunkBytes / 4;

class WriteBehindTest : public testing::Test {
 protected:
  // A tensor of n numbers, each its place among all so far.
  Tensor numbers(int64_t n) {
    Buffer<float>& buffer = buffers_.emplace_back(Shape{1, n});
    for (int64_t i = 0; i < n; ++i) buffer[i] = static_cast<float>(count_++ % 65521);
    return buffer;
  }
  void put(WriteBehind& behind, const Tensor& tensor) {
    behind.put(ctx_, queue_, tensor, [this](const Tensor& chunk) {
      EXPECT_EQ(chunk.shape.rank(), 1);
      EXPECT_LE(chunk.bytes(), static_cast<size_t>(WriteBehind::kChunkBytes));
      for (int64_t i = 0; i < chunk.elements(); ++i)
        wrong_ += chunk.as<float>()[i] != static_cast<float>(got_++ % 65521);
    });
  }

  TestCtx ctx_;
  const WriteBehind::Queue queue_ = 0;
  std::deque<Buffer<float>> buffers_;
  int64_t count_ = 0, got_ = 0, wrong_ = 0;
};

TEST_F(WriteBehindTest, GivesTheTensorsInOrderWhateverTheirSizes) {
  WriteBehind behind(ctx_, WriteBehind::kLeastBytes);
  for (int round = 0; round < 2; ++round)
    for (const int64_t n : {int64_t{7}, int64_t{0}, kChunkFloats, 2 * kChunkFloats + 3, int64_t{1}, kChunkFloats - 1})
      put(behind, numbers(n));
  behind.wait();
  EXPECT_TRUE(behind.idle());
  EXPECT_EQ(behind.take_failure(), nullptr);
  EXPECT_EQ(got_, count_);
  EXPECT_EQ(wrong_, 0);
}

// The copy is made when put returns: what the tensor holds later is not seen. With room, nothing waits for the thread.
TEST_F(WriteBehindTest, GivesWhatTheTensorsHeld) {
  WriteBehind behind(ctx_, 4 * WriteBehind::kChunkBytes);
  std::promise<void> go;
  behind.put(queue_, [wait = go.get_future().share()] { wait.wait(); });
  const Tensor tensor = numbers(2 * kChunkFloats);
  put(behind, tensor);
  EXPECT_FALSE(behind.idle());
  std::fill_n(tensor.as<float>(), tensor.elements(), -1.0F);
  go.set_value();
  behind.wait();
  EXPECT_EQ(got_, count_);
  EXPECT_EQ(wrong_, 0);
}

TEST_F(WriteBehindTest, WaitsForRoomAndTellsThatItAdvances) {
  std::atomic<int> advances = 0;
  WriteBehind behind(ctx_, 0, [&] { ++advances; });
  EXPECT_EQ(behind.bytes(), WriteBehind::kLeastBytes);
  put(behind, numbers(5 * kChunkFloats));
  EXPECT_GE(got_, 3 * kChunkFloats - 2 * kChunkFloats);  // room for two: three more waited for
  behind.wait();
  EXPECT_GE(advances, 1);
  EXPECT_EQ(got_, count_);
  EXPECT_EQ(wrong_, 0);
}

TEST_F(WriteBehindTest, DropsAllAfterAFailure) {
  WriteBehind behind(ctx_, WriteBehind::kLeastBytes);
  behind.put(queue_, [] { throw std::runtime_error("first"); });
  behind.put(queue_, [] { throw std::runtime_error("second"); });
  put(behind, numbers(5 * kChunkFloats));
  bool called = false;
  behind.put(queue_, [&] { called = true; });
  behind.wait();
  EXPECT_EQ(got_, 0);
  EXPECT_FALSE(called);
  const std::exception_ptr failure = behind.take_failure();
  ASSERT_NE(failure, nullptr);
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "first");
  }
  EXPECT_EQ(behind.take_failure(), nullptr);
  behind.put(queue_, [&] { called = true; });  // goes on
  behind.wait();
  EXPECT_TRUE(called);
}

// Several threads, and queues that go on at their own pace in a ring that has room for few chunks: each has its own
// tensors in order, by one thread at a time.
TEST_F(WriteBehindTest, QueuesGoOnSideBySide) {
  constexpr int kQueues = 5, kRounds = 6;
  constexpr int64_t kNumbers = kChunkFloats / 3;
  struct Seen {
    std::atomic<int> inside = 0, most_inside = 0;
    int64_t count = 0, wrong = 0;
  };
  std::array<Seen, kQueues> seen;
  std::atomic<int> busy = 0, most_busy = 0;
  Buffer<float> buffer({1, kNumbers});
  WriteBehind behind(ctx_, 3 * WriteBehind::kChunkBytes, 4, {});
  std::array<WriteBehind::Queue, kQueues> queues;
  for (WriteBehind::Queue& queue : queues) queue = behind.new_queue();
  const auto use = [&](int q, const Tensor& chunk) {
    Seen& of = seen[q];
    of.most_inside = std::max(of.most_inside.load(), ++of.inside);
    most_busy = std::max(most_busy.load(), ++busy);
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + q));
    for (int64_t i = 0; i < chunk.elements(); i += 997)
      of.wrong += chunk.as<float>()[i] != static_cast<float>(q * 1000 + of.count);
    ++of.count;
    --busy;
    --of.inside;
  };
  for (int round = 0; round < kRounds; ++round)
    for (int q = 0; q < kQueues; ++q) {
      std::fill_n(buffer.tensor().as<float>(), kNumbers, static_cast<float>(q * 1000 + round));
      behind.put(ctx_, queues[q], buffer, [&use, q](const Tensor& chunk) { use(q, chunk); });
    }
  behind.wait();
  EXPECT_EQ(behind.take_failure(), nullptr);
  EXPECT_GT(most_busy, 1);
  for (const Seen& of : seen) {
    EXPECT_EQ(of.count, kRounds);
    EXPECT_EQ(of.wrong, 0);
    EXPECT_EQ(of.most_inside, 1);
  }
}

TEST_F(WriteBehindTest, MayEndWithWorkLeft) {
  int done = 0;
  {
    WriteBehind behind(ctx_, WriteBehind::kLeastBytes);
    std::promise<void> begun;
    behind.put(queue_, [&] { begun.set_value(), ++done; });
    begun.get_future().wait();
    for (int i = 0; i < 3; ++i) put(behind, numbers(8));
  }
  EXPECT_EQ(done, 1);
}

}  // namespace
}  // namespace mixtune
