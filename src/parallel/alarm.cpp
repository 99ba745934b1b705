#include "parallel/alarm.h"

namespace mixtune {

Alarm::Alarm(std::function<void()> ring, std::function<bool()> goes_on)
    : ring_(std::move(ring)),
      goes_on_(std::move(goes_on)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

void Alarm::set(std::chrono::milliseconds time) {
  const std::lock_guard lock(mutex_);
  time_ = time;
  deadline_ = std::chrono::steady_clock::now() + time;
  set_ = true;
  rang_ = false;
  if (idle_) wake_.notify_one();
}

bool Alarm::clear() {
  const std::lock_guard lock(mutex_);
  set_ = false;
  return rang_;
}

// Sleeps through clear() and the next set(): it wakes for a deadline that may be past or moved.
void Alarm::run(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!set_) {
      idle_ = true;
      wake_.wait(lock, stop, [this] { return set_; });
      idle_ = false;
    } else if (std::chrono::steady_clock::now() >= deadline_ && goes_on_ && goes_on_()) {
      deadline_ = std::chrono::steady_clock::now() + time_;
    } else if (std::chrono::steady_clock::now() >= deadline_) {
      rang_ = true;
      set_ = false;
      ring_();
    } else {
      const auto deadline = deadline_;
      wake_.wait_until(lock, stop, deadline, [] { return false; });
    }
  }
}

}  // namespace mixtune
