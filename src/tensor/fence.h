// Fence: a place in the order of a device's work that the host waits for.
#pragma once

#include <memory>

#include "tensor/ctx.h"

namespace mixtune {

// On the CPU, where ops are complete when they return, it does nothing.
class Fence {
 public:
  Fence();
  ~Fence();  // waits: memory that the work uses may be freed after this
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;

  // Puts the fence behind all that was put on the ctx's stream until now, in place of where it stood. The ctx's GPU
  // outlives it.
  void set(Ctx& ctx);
  // Waits until the device has passed the fence, no longer than GpuOptions.patience; not at all if it was never set.
  void wait();
  bool is_passed() const;  // whether wait() would return at once

 private:
  struct Event;
  const Gpu* gpu_ = nullptr;  // where the event is
  std::unique_ptr<Event> event_;
};

}  // namespace mixtune
