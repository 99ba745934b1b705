#include "tensor/fence.h"

#include "tensor/gpu.h"

namespace mixtune {

struct Fence::Event : CudaEvent {};

Fence::Fence() = default;

Fence::~Fence() {
  if (event_) cudaEventSynchronize(event_->handle);
}

void Fence::set(Ctx& ctx) {
  if (ctx.gpu == nullptr) return;
  if (!event_) event_ = std::make_unique<Event>(Event{make_event()});
  check_cuda(cudaEventRecord(event_->handle, ctx.gpu->stream()), "fence");
}

void Fence::wait() {
  if (event_) check_cuda(cudaEventSynchronize(event_->handle), "fence");
}

}  // namespace mixtune
