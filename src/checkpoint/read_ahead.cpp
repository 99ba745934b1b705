#include "checkpoint/read_ahead.h"

#include <utility>

#include "base/error.h"

namespace mixtune {

ReadAhead::ReadAhead(ReadPlan plan) : plan_(std::move(plan)), slots_(plan_.memory.size() / plan_.buffer_bytes) {
  MT_CHECK(!slots_.empty() && plan_.buffer_bytes % UncachedFile::kBlock == 0);
  MT_CHECK(reinterpret_cast<uintptr_t>(plan_.memory.data()) % UncachedFile::kBlock == 0);
  try {
    for (int i = 0; i < plan_.threads; ++i) threads_.emplace_back([this] { run(); });
  } catch (...) {
    stop();
    throw;
  }
}

ReadAhead::~ReadAhead() {
  stop();
}

void ReadAhead::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  freed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ReadAhead::run() {
  for (;;) {
    size_t stretch = 0;
    {
      std::unique_lock lock(mutex_);
      const auto all_started = [&] {
        return stopped_ || started_ == plan_.stretches.size();
      };
      freed_.wait(lock, [&] { return all_started() || started_ < released_ + slots_.size(); });
      if (all_started()) return;
      stretch = started_++;
    }
    Slot slot = fill(stretch);
    {
      const std::lock_guard lock(mutex_);
      slots_[stretch % slots_.size()] = std::move(slot);
    }
    filled_.notify_one();
  }
}

ReadAhead::Slot ReadAhead::fill(size_t stretch) const {
  Slot slot{.full = true};
  try {
    const auto& [file, begin, end] = plan_.stretches[stretch];
    const size_t place = stretch % slots_.size() * plan_.buffer_bytes;
    slot.bytes = file->read(begin, end, plan_.memory.subspan(place, plan_.buffer_bytes));
    if (plan_.inspect) plan_.inspect(stretch, slot.bytes);
  } catch (...) {
    slot.error = std::current_exception();
  }
  return slot;
}

std::span<const std::byte> ReadAhead::next() {
  MT_CHECK(given_ < plan_.stretches.size() && given_ < released_ + slots_.size());
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[given_ % slots_.size()];
  filled_.wait(lock, [&] { return slot.full; });
  const Slot taken = std::exchange(slot, {});
  ++given_;
  if (taken.error) std::rethrow_exception(taken.error);
  return taken.bytes;
}

void ReadAhead::release() {
  MT_CHECK(released_ < given_);
  {
    const std::lock_guard lock(mutex_);
    ++released_;
  }
  freed_.notify_one();
}

}  // namespace mixtune
