#include "tensor/gpu.h"

#include <cuda.h>
#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "tensor/ctx.h"
#include "tensor/gpu_identity.h"

namespace mixtune {

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(what, fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status)),
              "run 'mixtune doctor'; if the GPU is well, please report this");
}

CudaStream make_stream(bool urgent) {
  CudaStream stream;
  int least = 0, greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream");
  check_cuda(cudaStreamCreateWithPriority(&stream.handle, cudaStreamNonBlocking, urgent ? greatest : least), "stream");
  return stream;
}

CudaEvent make_event(bool timing) {
  CudaEvent event;
  check_cuda(cudaEventCreateWithFlags(&event.handle, timing ? cudaEventDefault : cudaEventDisableTiming), "event");
  return event;
}

namespace {

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, name, device), "device attribute");
  return value;
}

int capability(int device) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
         attribute(cudaDevAttrComputeCapabilityMinor, device);
}

}  // namespace

Gpu::Gpu(Device device, const GpuOptions& options)
    : device_(device),
      options_(options),
      multiprocessors_(attribute(cudaDevAttrMultiProcessorCount, device.index)),
      compute_capability_(capability(device.index)),
      workspace_("library workspaces", device, (1 + kSideStreams) * kWorkspaceBytes) {
  stream_ = make_stream();
  lane_ = make_stream(true);
  current_ = stream_.handle;
  forked_ = make_event();
  waited_ = make_event();
  laned_ = make_event();
  for (CudaEvent& mark : marks_) mark = make_event();
  for (Side& side : side_) side = {make_stream(), make_event()};
}

void Gpu::fork(int side_streams) {
  check_cuda(cudaEventRecord(forked_.handle, stream()), "fork");
  for (int i = 0; i < side_streams; ++i) check_cuda(cudaStreamWaitEvent(side_stream(i), forked_.handle), "fork");
}

void Gpu::join(int side_streams) {
  for (int i = 0; i < side_streams; ++i) {
    check_cuda(cudaEventRecord(side_[i].done.handle, side_stream(i)), "join");
    check_cuda(cudaStreamWaitEvent(stream(), side_[i].done.handle), "join");
  }
}

void Gpu::enter_lane() {
  check_cuda(cudaEventRecord(laned_.handle, stream_.handle), "lane");
  check_cuda(cudaStreamWaitEvent(lane_.handle, laned_.handle), "lane");
  current_ = lane_.handle;
}

void Gpu::leave_lane() {
  current_ = stream_.handle;
  if (warming_up_) wait_for_lane(mark_lane());  // nothing runs beside products whose speed is measured
}

int64_t Gpu::mark_lane() {
  ++last_mark_;
  check_cuda(cudaEventRecord(marks_[last_mark_ % kMarks].handle, lane_.handle), "lane");
  return last_mark_;
}

void Gpu::wait_for_lane(int64_t mark) {
  MT_CHECK(!in_lane());
  if (mark <= awaited_mark_) return;
  check_cuda(cudaStreamWaitEvent(stream_.handle, marks_[mark % kMarks].handle), "lane");
  awaited_mark_ = mark;
}

void Gpu::wait() {
  check_cuda(cudaEventRecord(waited_.handle, stream()), "wait");
  wait_for(waited_.handle);
  ++waits_;
}

// Keeps a core busy, as cudaEventSynchronize does.
void Gpu::wait_for(cudaEvent_t event) const {
  if (options_.patience <= 0) return check_cuda(cudaEventSynchronize(event), "wait");
  using Clock = std::chrono::steady_clock;
  const auto later = [this] {
    return Clock::now() + std::chrono::duration<double>(options_.patience);
  };
  for (auto end = later();;) {
    const cudaError_t status = cudaEventQuery(event);
    if (status != cudaErrorNotReady) return check_cuda(status, "wait");
    if (Clock::now() <= end) continue;
    options_.give_up(fmt::format("the GPU has not come to an end within {:g} s", options_.patience));
    end = later();
  }
}

bool built_with_cuda() {
  return true;
}

int gpu_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

void use_in_this_thread(Device device) {
  if (device.type == DeviceType::kCuda) check_cuda(cudaSetDevice(device.index), "device");
}

GpuInfo gpu_info(int index) {
  GpuInfo info;
  cudaDeviceProp properties;
  check_cuda(cudaSetDevice(index), "device");
  check_cuda(cudaGetDeviceProperties(&properties, index), "device properties");
  check_cuda(cudaMemGetInfo(&info.free_memory, &info.memory), "device memory");
  check_cuda(cudaDriverGetVersion(&info.driver), "driver version");
  check_cuda(cudaRuntimeGetVersion(&info.runtime), "runtime version");
  info.name = properties.name;
  info.compute_capability = capability(index);
  info.multiprocessors = properties.multiProcessorCount;
  return info;
}

int gpu_compute_capability(int index) {
  return capability(index);
}

size_t gpu_memory_in_use(int index) {
  size_t free = 0, all = 0;
  check_cuda(cudaSetDevice(index), "device");
  check_cuda(cudaMemGetInfo(&free, &all), "device memory");
  return all - free;
}

namespace {

template <class Function>
Function driver_function(const char* name, unsigned cuda_version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  check_cuda(cudaGetDriverEntryPointByVersion(name, &function, cuda_version, cudaEnableDefault, &found), name);
  if (found != cudaDriverEntryPointSuccess || !function)
    throw Error("CUDA", fmt::format("the driver has no {}", name), "update the driver");
  return reinterpret_cast<Function>(function);
}

}  // namespace

GpuIdentity gpu_identity(int index) {
  GpuIdentity identity;
  char bus[32];
  check_cuda(cudaDeviceGetPCIBusId(bus, sizeof bus, index), "bus id");
  identity.bus = bus;
  // The driver's second cuDeviceGetUuid gives a slice's own UUID. What the runtime gives for a slice is not documented.
  const auto device_of = driver_function<decltype(&cuDeviceGet)>("cuDeviceGet", 2000);
  const auto uuid_of = driver_function<decltype(&cuDeviceGetUuid)>("cuDeviceGetUuid", 11040);
  CUdevice device = 0;
  CUuuid uuid = {};
  if (device_of(&device, index) != CUDA_SUCCESS || uuid_of(&uuid, device) != CUDA_SUCCESS)
    throw Error("CUDA", fmt::format("the driver does not tell the UUID of GPU {}", index), "run 'mixtune doctor'");
  for (const char byte : uuid.bytes) identity.uuid += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return identity;
}

std::shared_ptr<Gpu> make_gpu(Device device, const GpuOptions& options) {
  if (device.index >= gpu_count())
    throw UserError("device", fmt::format("there is no GPU {} that CUDA can use", device.index),
                    "run 'mixtune doctor', or set device: cpu");
  check_cuda(cudaSetDevice(device.index), "device");
  return std::make_shared<Gpu>(device, options);
}

// Called in a destructor: a failure here is reported by the next call that is checked.
void poison_released(Stack& stack, Gpu& gpu) {
  stack.poison_with([&gpu](void* data, size_t bytes) { cudaMemsetAsync(data, 0xFF, bytes, gpu.stream()); });
}

void copy(Ctx& ctx, const Tensor& from, const Tensor& to) {
  MT_CHECK(from.dtype == to.dtype && from.elements() == to.elements());
  if (from.elements() == 0 || ctx.is_meta()) return;
  if (!ctx.like_gpu()) {
    std::memcpy(to.data, from.data, from.bytes());
    return;
  }
  check_cuda(cudaMemcpyAsync(to.data, from.data, from.bytes(), cudaMemcpyDefault, ctx.gpu->stream()), "copy");
}

void zero(Ctx& ctx, const Tensor& tensor) {
  if (ctx.is_meta()) return;
  if (ctx.like_gpu())
    check_cuda(cudaMemsetAsync(tensor.data, 0, tensor.bytes(), ctx.gpu->stream()), "zero");
  else
    std::memset(tensor.data, 0, tensor.bytes());
}

void wait(Ctx& ctx) {
  if (ctx.gpu) ctx.gpu->wait();
}

int64_t device_waits(const Ctx& ctx) {
  return ctx.gpu ? ctx.gpu->waits() : 0;
}
int64_t late_plans(const Ctx& ctx) {
  return ctx.gpu ? ctx.gpu->late_plans() : 0;
}

}  // namespace mixtune
