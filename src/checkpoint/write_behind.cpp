#include "checkpoint/write_behind.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "tensor/device.h"

namespace mixtune {

WriteBehind::WriteBehind(Ctx& ctx, size_t bytes, int threads, std::function<void()> advanced)
    : memory_("weights being written", {}, std::max(bytes, kLeastBytes),
              ctx.gpu == nullptr ? HostMemory::kPageable : HostMemory::kPinned),
      advanced_(std::move(advanced)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, device = ctx.device] { run(device); });
}

WriteBehind::~WriteBehind() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    waiting_.clear();  // their fences wait: nothing is copied into the ring afterwards
  }
  came_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WriteBehind::put(Ctx& ctx, Queue queue, const Tensor& from, const Use& use) {
  const auto shared = std::make_shared<Use>(use);  // one for all chunks: it may count them
  const int64_t elements = from.elements(), most = kChunkBytes / static_cast<int64_t>(dtype_size(from.dtype));
  for (int64_t done = 0, count; done < elements; done += count) {
    count = std::min(most, elements - done);
    const Tensor part = from.view({elements}).slice(done, count);
    char* const room = reserve(part.bytes());
    if (room == nullptr) return;
    const Tensor chunk{room, part.shape, part.dtype, {}};
    copy(ctx, part, chunk);
    auto copied = std::make_unique<Fence>();
    copied->set(ctx);
    add(queue, {[shared, chunk] { (*shared)(chunk); }, std::move(copied)});
  }
}

void WriteBehind::put(Queue queue, DType dtype, int64_t n, const Use& fill, Use use) {
  Tensor chunk{nullptr, {n}, dtype, {}};
  MT_CHECK(chunk.bytes() <= kChunkBytes);
  chunk.data = reserve(chunk.bytes());
  if (chunk.data == nullptr) return;
  fill(chunk);
  add(queue, {[use = std::move(use), chunk] {
        use(chunk);
      }});
}

void WriteBehind::put(Queue queue, std::function<void()> work) {
  add(queue, {std::move(work)});
}

// Waits for the threads, and tells the caller's caller of what they do.
template <class Condition>
void WriteBehind::wait_until(std::unique_lock<std::mutex>& lock, Condition&& condition) const {
  while (!condition()) {
    done_.wait(lock);
    if (!advanced_) continue;
    lock.unlock();
    advanced_();
    lock.lock();
  }
}

// Room for a chunk, once there is; null where all is dropped. It does not go over the ring's end.
char* WriteBehind::reserve(size_t bytes) {
  const size_t whole = memory_.bytes(), taken = align_up(bytes);
  std::unique_lock lock(mutex_);
  const size_t place = end_ % whole, skipped = place + taken > whole ? whole - place : 0;
  wait_until(lock, [&] { return failure_ != nullptr || end_ + skipped + taken - begin_ <= whole; });
  if (failure_ != nullptr) return nullptr;
  end_ += skipped + taken;
  return memory_.data() + (end_ - taken) % whole;
}

void WriteBehind::add(Queue queue, Job job) {
  {
    const std::lock_guard lock(mutex_);
    job.number = first_ + chunks_.size();
    chunks_.push_back({end_});
    waiting_[queue].push_back(std::move(job));
  }
  came_.notify_one();
}

bool WriteBehind::idle() const {
  const std::lock_guard lock(mutex_);
  return !has_work();
}

void WriteBehind::wait() const {
  std::unique_lock lock(mutex_);
  wait_until(lock, [this] { return !has_work(); });
}

std::exception_ptr WriteBehind::take_failure() {
  const std::lock_guard lock(mutex_);
  MT_CHECK(!has_work());
  return std::exchange(failure_, nullptr);
}

// A thread takes the next job of the oldest queue that no other works on: so the ring is freed in its order.
void WriteBehind::run(Device device) {
  use_in_this_thread(device);
  omp_set_num_threads(1);  // what is called leaves the cores to training
  std::unique_lock lock(mutex_);
  for (;;) {
    auto queue = waiting_.end();
    came_.wait(lock, [&] {
      queue = std::ranges::find_if(waiting_, [&](const auto& jobs) { return !busy_.contains(jobs.first); });
      return ends_ || queue != waiting_.end();
    });
    if (queue == waiting_.end()) return;
    const Queue number = queue->first;
    Job job = std::move(queue->second.front());
    queue->second.pop_front();
    if (queue->second.empty()) waiting_.erase(queue);
    busy_.insert(number);
    const bool drops = failure_ != nullptr;
    lock.unlock();
    std::exception_ptr failure = drops ? nullptr : do_job(job);
    const uint64_t of_job = job.number;
    job = {};  // what it holds may take long to go
    lock.lock();
    finish(number, of_job, std::move(failure));
  }
}

// With the lock held.
void WriteBehind::finish(Queue queue, uint64_t job, std::exception_ptr failure) {
  busy_.erase(queue);
  chunks_[job - first_].done = true;
  for (; !chunks_.empty() && chunks_.front().done; ++first_) {
    begin_ = chunks_.front().end;
    chunks_.pop_front();
  }
  if (failure != nullptr && failure_ == nullptr) failure_ = std::move(failure);
  done_.notify_all();
  came_.notify_one();  // its queue may have more
}

// What it throws. It looks now and then whether the copy is there, as a thread that asks all the time would keep the
// driver from those that launch kernels.
std::exception_ptr WriteBehind::do_job(const Job& job) noexcept try {
  if (job.copied)
    while (!job.copied->is_passed()) std::this_thread::sleep_for(std::chrono::microseconds(200));
  job.work();
  return nullptr;
} catch (...) {
  return std::current_exception();
}

}  // namespace mixtune
