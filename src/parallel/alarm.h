// Alarm: calls a function where something takes too long.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace mixtune {

class Alarm {
 public:
  // Both functions are called on the alarm's own thread, never after clear(). Where goes_on returns true the alarm does
  // not ring, but is set for the same time again.
  explicit Alarm(std::function<void()> ring, std::function<bool()> goes_on = {});

  // Sets the alarm to `time` from now: always the same, so that the thread need not be woken.
  void set(std::chrono::milliseconds time);

  // Stops the alarm. Returns whether it rang since it was set.
  bool clear();

 private:
  void run(const std::stop_token& stop);

  std::function<void()> ring_;
  std::function<bool()> goes_on_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::chrono::milliseconds time_{};
  std::chrono::steady_clock::time_point deadline_;
  bool set_ = false, rang_ = false, idle_ = false;
  std::jthread thread_;
};

}  // namespace mixtune
