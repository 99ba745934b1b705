// Ctx: what an op needs besides its operands.
#pragma once

#include "tensor/memory.h"

namespace mixtune {

// The device an op runs on and the stack its temporaries come from (released before the op returns).
// On the CPU ops run on OpenMP's threads and are complete when they return.
struct Ctx {
  Device device;
  Stack& stack;
};

}  // namespace mixtune
