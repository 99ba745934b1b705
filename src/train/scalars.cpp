#include "train/scalars.h"

#include <algorithm>
#include <iterator>

namespace mixtune {

Scalars::Scalars(Ctx& ctx, const char* name, int64_t count)
    : device_arena_(name, ctx.device, align_up(count * sizeof(double))),
      host_arena_(name, Device{}, 2 * align_up(count * sizeof(double)),
                  ctx.like_gpu() ? HostMemory::kPinned : HostMemory::kPageable),
      device_(device_arena_.allocate(name, {count}, DType::kF64)),
      host_(host_arena_.allocate(name, {count}, DType::kF64)),
      given_(host_arena_.allocate(name, {count}, DType::kF64)) {}

void Scalars::set(Ctx& ctx, int64_t first, std::initializer_list<double> values) {
  const Tensor from = given_.slice(first, std::ssize(values));
  std::ranges::copy(values, from.as<double>());
  copy(ctx, from, slice(first, std::ssize(values)));
}

const double* Scalars::read(Ctx& ctx) {
  copy(ctx, device_, host_);
  wait(ctx);
  return host_.as<double>();
}

}  // namespace mixtune
