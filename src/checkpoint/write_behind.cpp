#include "checkpoint/write_behind.h"

#include <omp.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "tensor/device.h"

namespace mixtune {

WriteBehind::WriteBehind(Ctx& ctx, size_t bytes, std::function<void()> advanced)
    : memory_("weights being written", {}, std::max(bytes, kLeastBytes),
              ctx.gpu == nullptr ? HostMemory::kPageable : HostMemory::kPinned),
      advanced_(std::move(advanced)),
      thread_([this, device = ctx.device] { run(device); }) {}

WriteBehind::~WriteBehind() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    jobs_.clear();  // their fences wait: nothing is copied into the ring afterwards
  }
  came_.notify_one();
  thread_.join();
}

void WriteBehind::put(Ctx& ctx, const Tensor& from, const Use& use) {
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
    add({[use, chunk] { use(chunk); }, std::move(copied), end_});
  }
}

void WriteBehind::then(std::function<void()> work) {
  add({std::move(work), nullptr, end_});
}

// Room for a chunk, once there is; null where all is dropped. It does not go over the ring's end.
char* WriteBehind::reserve(size_t bytes) {
  const size_t whole = memory_.bytes(), taken = align_up(bytes);
  std::unique_lock lock(mutex_);
  const size_t place = end_ % whole, skipped = place + taken > whole ? whole - place : 0;
  while (failure_ == nullptr && end_ + skipped + taken - begin_ > whole) {
    done_.wait(lock);
    if (!advanced_) continue;
    lock.unlock();
    advanced_();
    lock.lock();
  }
  if (failure_ != nullptr) return nullptr;
  end_ += skipped + taken;
  return memory_.data() + (end_ - taken) % whole;
}

void WriteBehind::add(Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  came_.notify_one();
}

bool WriteBehind::idle() const {
  const std::lock_guard lock(mutex_);
  return jobs_.empty() && !busy_;
}

void WriteBehind::wait() const {
  std::unique_lock lock(mutex_);
  while (!jobs_.empty() || busy_) {
    done_.wait(lock);
    if (!advanced_) continue;
    lock.unlock();
    advanced_();
    lock.lock();
  }
}

std::exception_ptr WriteBehind::take_failure() {
  const std::lock_guard lock(mutex_);
  MT_CHECK(jobs_.empty() && !busy_);
  return std::exchange(failure_, nullptr);
}

void WriteBehind::run(Device device) {
  use_in_this_thread(device);
  omp_set_num_threads(1);  // what it calls leaves the cores to training
  std::unique_lock lock(mutex_);
  for (;;) {
    came_.wait(lock, [this] { return ends_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    busy_ = true;
    const uint64_t end = job.end;
    const bool drops = failure_ != nullptr;
    lock.unlock();
    std::exception_ptr failure = drops ? nullptr : do_job(job);
    job = {};  // what it holds may take long to go
    lock.lock();
    begin_ = end;
    busy_ = false;
    if (failure != nullptr && failure_ == nullptr) failure_ = std::move(failure);
    done_.notify_all();
  }
}

// What it throws.
std::exception_ptr WriteBehind::do_job(const Job& job) noexcept try {
  if (job.copied) job.copied->wait();
  job.work();
  return nullptr;
} catch (...) {
  return std::current_exception();
}

}  // namespace mixtune
