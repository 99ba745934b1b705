#include "train/scalars.h"

namespace mixtune {

Scalars::Scalars(Ctx& ctx, const char* name, int64_t count)
    : device_arena_(name, ctx.device, align_up(count * sizeof(double))),
      host_arena_(name, Device{}, align_up(count * sizeof(double)),
                  ctx.like_gpu() ? HostMemory::kPinned : HostMemory::kPageable),
      device_(device_arena_.allocate(name, {count}, DType::kF64)),
      host_(host_arena_.allocate(name, {count}, DType::kF64)) {}

const double* Scalars::read(Ctx& ctx) {
  copy(ctx, device_, host_);
  wait(ctx);
  return host_.as<double>();
}

}  // namespace mixtune
