// The functions of gpu.cpp, cuda_memory.cpp, fence.cpp, graphs.cpp, lane.cpp and nvtx.cpp in a build without CUDA.
#include <cstring>

#include "tensor/ctx.h"
#include "tensor/cuda_memory.h"
#include "tensor/fence.h"
#include "tensor/gpu_identity.h"
#include "tensor/graphs.h"
#include "tensor/lane.h"
#include "tensor/nvtx.h"

namespace mixtune {

namespace {

[[noreturn]] void no_cuda() {
  throw UserError("device", "this mixtune was built without CUDA",
                  "set device: cpu, or build on a machine with CUDA 13 (scripts/build)");
}

}  // namespace

void* cuda::allocate(const std::string&, Device, size_t) {
  no_cuda();
}
void cuda::release(Device, void*) {}

void cuda::push_range(const char*) {}
void cuda::pop_range() {}
std::unique_ptr<StampClock> cuda::make_stamp_clock(Gpu&) {
  no_cuda();
}

bool built_with_cuda() {
  return false;
}
int gpu_count() {
  return 0;
}
void use_in_this_thread(Device) {}
GpuInfo gpu_info(int) {
  no_cuda();
}
int gpu_compute_capability(int) {
  no_cuda();
}
size_t gpu_memory_in_use(int) {
  no_cuda();
}
GpuIdentity gpu_identity(int) {
  no_cuda();
}
std::shared_ptr<Gpu> make_gpu(Device, const GpuOptions&) {
  no_cuda();
}
void poison_released(Stack&, Gpu&) {}

void copy(Ctx& ctx, const Tensor& from, const Tensor& to) {
  MT_CHECK(from.dtype == to.dtype && from.elements() == to.elements());
  if (from.elements() > 0 && !ctx.is_meta()) std::memcpy(to.data, from.data, from.bytes());
}
void zero(Ctx& ctx, const Tensor& tensor) {
  if (!ctx.is_meta()) std::memset(tensor.data, 0, tensor.bytes());
}
void wait(Ctx&) {}
int64_t device_waits(const Ctx&) {
  return 0;
}
int64_t late_plans(const Ctx&) {
  return 0;
}

InLane::InLane(Ctx& ctx) : ctx_(ctx), entered_(false) {}
InLane::~InLane() = default;
bool in_lane(const Ctx&) {
  return false;
}
LaneMark mark_lane(Ctx&) {
  return {};
}
void wait_for_lane(Ctx&, LaneMark) {}

struct Graphs::Device {};
Graphs::Graphs() = default;
Graphs::~Graphs() = default;
void Graphs::run(Ctx&, const std::function<void()>&) {
  no_cuda();
}
void Graphs::cut(Ctx&) {
  no_cuda();
}
int64_t Graphs::instantiations() const {
  return 0;
}

struct Fence::Event {};
Fence::Fence() = default;
Fence::~Fence() = default;
void Fence::set(Ctx&) {}
void Fence::wait() {}
bool Fence::is_passed() const {
  return true;
}

}  // namespace mixtune
