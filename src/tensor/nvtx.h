// The GPU half of profiler.h: NVTX ranges, and a clock of events.
#pragma once

#include "tensor/profiler.h"

namespace mixtune::cuda {

void push_range(const char* name);
void pop_range();
std::unique_ptr<StampClock> make_stamp_clock(Gpu& gpu);

}  // namespace mixtune::cuda
