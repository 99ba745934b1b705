// WriteBehind: brings tensors to the host as a device's stream has left them, and has a thread use them: what is
// written while training goes on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "tensor/ctx.h"
#include "tensor/fence.h"

namespace mixtune {

// One thread calls its functions. Beside a GPU its memory is pinned, and copies go on while the caller does.
class WriteBehind {
 public:
  static constexpr int64_t kChunkBytes = 16 << 20;
  static constexpr size_t kLeastBytes = 2 * kChunkBytes;  // one chunk is used while the next is copied

  // Holds at most `bytes` of tensors (at least kLeastBytes). `advanced`, if any, is called by a function that waits,
  // whenever the thread has done something. The ctx's GPU outlives it.
  WriteBehind(Ctx& ctx, size_t bytes, std::function<void()> advanced = {});
  ~WriteBehind();  // what was not begun is dropped
  WriteBehind(const WriteBehind&) = delete;
  WriteBehind& operator=(const WriteBehind&) = delete;

  // Puts a copy of `from` on the ctx's stream. The thread calls `use` with its chunks, [n] of its dtype, in order.
  // Waits while there is no room.
  using Use = std::function<void(const Tensor& chunk)>;
  void put(Ctx& ctx, const Tensor& from, const Use& use);
  // The thread calls `work` after all that was put before.
  void then(std::function<void()> work);

  bool idle() const;  // whether the thread has done, or dropped, all
  void wait() const;  // until it is idle
  // What the first use or work threw since this was last called; it and all after it were dropped. Once idle.
  std::exception_ptr take_failure();

  size_t bytes() const { return memory_.bytes(); }

 private:
  struct Job {
    std::function<void()> work;
    std::unique_ptr<Fence> copied;  // null: nothing to wait for
    uint64_t end;                   // of its chunk, counted from the first byte of all
  };
  char* reserve(size_t bytes);
  void add(Job job);
  void run(Device device);
  static std::exception_ptr do_job(const Job& job) noexcept;

  Memory memory_;  // a ring
  const std::function<void()> advanced_;
  mutable std::mutex mutex_;
  mutable std::condition_variable came_, done_;
  std::deque<Job> jobs_;
  bool busy_ = false, ends_ = false;
  uint64_t begin_ = 0, end_ = 0;  // of what the ring holds, counted likewise
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace mixtune
