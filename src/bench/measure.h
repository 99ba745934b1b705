// Measures this device: timing, and the two rates that others are compared with.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tensor/ctx.h"

namespace mixtune {

// "NVIDIA H100 80GB HBM3", "CPU"
std::string device_name(Device device);

using Work = std::function<void()>;

// The milliseconds of each of `count` runs, by the device's own clock. `before`, if not empty, precedes each, untimed.
std::vector<double> times(Ctx& ctx, int count, const Work& run, const Work& before = {});

// Runs `run` again and again for so long, once at least.
void run_for(Ctx& ctx, double seconds, const Work& run);

// TB/s of a copy, reads and writes together. This and gemm_rate use the stack, as far as it has room.
double copy_rate(Ctx& ctx);
// TFLOP/s of one large product of matrices of `dtype`, after it has run for `seconds`.
double gemm_rate(Ctx& ctx, DType dtype, double seconds);

}  // namespace mixtune
