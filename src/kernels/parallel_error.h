// An exception must not leave an OpenMP region: it is kept inside and thrown after.
#pragma once

#include <atomic>
#include <exception>

namespace mixtune::cpu {

class ParallelError {
 public:
  // Runs a task of the region; the first exception of all tasks is kept.
  template <class Task>
  void run(const Task& task) {
    try {
      task();
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  // After the region.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace mixtune::cpu
