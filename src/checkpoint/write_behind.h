// WriteBehind: brings tensors to the host as a device's stream has left them, and has threads use them: what is written
// while training goes on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/ctx.h"
#include "tensor/fence.h"

namespace mixtune {

// One caller at a time. Beside a GPU its memory is pinned, and copies go on while the caller does.
class WriteBehind {
 public:
  static constexpr int64_t kChunkBytes = 16 << 20;
  static constexpr size_t kLeastBytes = 2 * kChunkBytes;  // one chunk is used while the next is copied
  static constexpr int kGpuThreads = 4;                   // on the CPU one: training has the cores

  // Holds at most `bytes` of tensors (at least kLeastBytes). `advanced`, if any, is called by a function that waits,
  // whenever a thread has done something. The ctx's GPU outlives it.
  WriteBehind(Ctx& ctx, size_t bytes, std::function<void()> advanced = {})
      : WriteBehind(ctx, bytes, ctx.gpu == nullptr ? 1 : kGpuThreads, std::move(advanced)) {}
  WriteBehind(Ctx& ctx, size_t bytes, int threads, std::function<void()> advanced);
  ~WriteBehind();  // what was not begun is dropped
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Work of one queue is done in the order in which it was put, by one thread at a time; queues are worked on side by
  // side.
  using Queue = int64_t;
  Queue new_queue() { return ++queues_; }

  // Puts a copy of `from` on the ctx's stream. The queue calls `use` with its chunks, [n] of its dtype, in order. Waits
  // while there is no room.
  using Use = std::function<void(const Tensor& chunk)>;
  void put(Ctx& ctx, Queue queue, const Tensor& from, const Use& use);
  // The same of what `fill` writes into its argument, [n], of this type, at most kChunkBytes, on the calling thread;
  // not called once something has failed.
  void put(Queue queue, DType dtype, int64_t n, const Use& fill, Use use);
  // The queue calls `work`.
  void put(Queue queue, std::function<void()> work);

  bool idle() const;  // whether the threads have done, or dropped, all
  void wait() const;  // until they are idle
  // What the first use or work threw since this was last called; all that was not begun then was dropped. Once idle.
  std::exception_ptr take_failure();

  size_t bytes() const { return memory_.bytes(); }

 private:
  struct Job {
    std::function<void()> work;
    std::unique_ptr<Fence> copied = nullptr;  // null: nothing to wait for
    uint64_t number = 0;                      // among all
  };
  // What the ring holds for a job: it is freed in the order of the jobs.
  struct Chunk {
    uint64_t end;  // counted from the first byte of all
    bool done = false;
  };

  char* reserve(size_t bytes);
  void add(Queue queue, Job job);
  bool has_work() const { return !waiting_.empty() || !busy_.empty(); }
  void run(Device device);
  static std::exception_ptr do_job(const Job& job) noexcept;
  void finish(Queue queue, uint64_t job, std::exception_ptr failure);
  template <class Condition>
  void wait_until(std::unique_lock<std::mutex>& lock, Condition&& condition) const;

  Memory memory_;  // a ring
  const std::function<void()> advanced_;
  Queue queues_ = 0;
  mutable std::mutex mutex_;
  mutable std::condition_variable came_, done_;
  std::map<Queue, std::deque<Job>> waiting_;  // no queue is empty
  std::set<Queue> busy_;                      // a thread works on it
  bool ends_ = false;
  std::deque<Chunk> chunks_;  // of the jobs from number first_ on
  uint64_t first_ = 0;
  uint64_t begin_ = 0, end_ = 0;  // of what the ring holds, counted likewise
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace mixtune
