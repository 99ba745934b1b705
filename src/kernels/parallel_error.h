// ParallelError: keeps an exception inside an OpenMP region, which it must not leave, and throws it afterwards.
#pragma once

#include <atomic>
#include <exception>

namespace mixtune::cpu {

class ParallelError {
 public:
  // Runs a task of the region and keeps the first exception of all tasks.
  template <class Task>
  void run(const Task& task) {
    try {
      task();
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  // Throws that exception, after the region.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace mixtune::cpu
