#include "tensor/fence.h"

#include "tensor/gpu.h"

namespace mixtune {

struct Fence::Event : CudaEvent {};

Fence::Fence() = default;

Fence::~Fence() {
  try {
    wait();
  } catch (...) {  // the call that waits for the work reports it
  }
}

void Fence::set(Ctx& ctx) {
  if (ctx.gpu == nullptr) return;
  if (!event_) event_ = std::make_unique<Event>(Event{make_event()});
  gpu_ = ctx.gpu;
  check_cuda(cudaEventRecord(event_->handle, ctx.gpu->stream()), "fence");
}

void Fence::wait() {
  if (gpu_ != nullptr) gpu_->wait_for(event_->handle);
}

bool Fence::is_passed() const {
  if (gpu_ == nullptr) return true;
  const cudaError_t status = cudaEventQuery(event_->handle);
  if (status != cudaErrorNotReady) check_cuda(status, "fence");
  return status == cudaSuccess;
}

}  // namespace mixtune
