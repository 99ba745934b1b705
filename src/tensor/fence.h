// Fence: a place in the order of a device's work that the host waits for.
#pragma once

#include <memory>

#include "tensor/ctx.h"

namespace mixtune {

// On the CPU, where ops are complete when they return, it does nothing.
class Fence {
 public:
  Fence();
  ~Fence();  // waits, so that memory which the work reads or writes may go after it
  Fence(const Fence&) = delete;
  Fence& operator=(const Fence&) = delete;

  // The ctx's GPU outlives the fence. Stands after all that was put on the ctx's stream until now; forgets where it
  // stood before.
  void set(Ctx& ctx);
  // Returns when the device has passed it; at once if it was never set. No longer than GpuOptions.patience.
  void wait();

 private:
  struct Event;
  const Gpu* gpu_ = nullptr;  // where the event is
  std::unique_ptr<Event> event_;
};

}  // namespace mixtune
