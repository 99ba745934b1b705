// Ctx: what an op needs besides its operands.
#pragma once

#include <limits>

#include "tensor/device.h"
#include "tensor/memory.h"

namespace mixtune {

class Profiler;  // profiler.h

// The rows that come to this rank on kMeta, which has no routing, in units of an even share; the worst: all there are.
constexpr double kEvenRouting = 1, kWorstRouting = std::numeric_limits<double>::infinity();

// The device an op runs on, and the stacks its temporaries come from (released before the op returns). On the CPU ops
// run on OpenMP's threads and are complete when they return; on a GPU they are put on its stream.
struct Ctx {
  Device device;
  Stack& stack;
  Stack& host_stack;  // for what the host must read: pinned beside a GPU, `stack` itself on the CPU
  Gpu* gpu = nullptr;
  Profiler* profiler = nullptr;
  double routing_share = kEvenRouting;  // on kMeta; above an even one, gaps are the largest

  bool like_gpu() const { return device.type != DeviceType::kCpu; }  // or on kMeta, which stands for one
  bool is_meta() const { return device.type == DeviceType::kMeta; }
};

// Releases what was pushed on either stack in a scope.
class Frame {
 public:
  explicit Frame(Ctx& ctx) : device_(ctx.stack), host_(ctx.host_stack) {}

 private:
  Stack::Frame device_, host_;
};

}  // namespace mixtune
