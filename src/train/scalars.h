// Scalars: the numbers of a step, added up on the device and read by the host once, at its end.
#pragma once

#include <initializer_list>

#include "tensor/ctx.h"

namespace mixtune {

// fp64 numbers on the device of a ctx, and their copy on the host.
class Scalars {
 public:
  Scalars(Ctx& ctx, const char* name, int64_t count);

  // [n] fp64 on the device.
  Tensor slice(int64_t first, int64_t n = 1) const { return device_.slice(first, n); }
  void clear(Ctx& ctx) { zero(ctx, device_); }
  // Sets the numbers from `first` on. The next read() waits until that is done; before it nothing else is set.
  void set(Ctx& ctx, int64_t first, std::initializer_list<double> values);
  // Waits for the device.
  const double* read(Ctx& ctx);

 private:
  Arena device_arena_, host_arena_;
  Tensor device_, host_, given_;
};

}  // namespace mixtune
