#include "checkpoint/readback.h"

#include <algorithm>

namespace mixtune {

Readback::Readback(Ctx& ctx, Buffers buffers) : ctx_(ctx) {
  if (buffers == Buffers::kNone) return;
  arena_.emplace("weights being written", Device{}, 2 * kChunkBytes,
                 ctx.gpu == nullptr ? HostMemory::kPageable : HostMemory::kPinned);
  for (Buffer& buffer : buffers_) buffer.memory = arena_->allocate("chunk", {kChunkBytes}, DType::kU8);
}

void Readback::start(std::vector<Tensor> tensors) {
  tensors_ = std::move(tensors);
  tensor_ = 0;
  done_ = 0;
  if (arena_) copy_to(current_);
}

Tensor Readback::cut() {
  while (tensor_ < tensors_.size() && done_ == tensors_[tensor_].elements()) {
    ++tensor_;
    done_ = 0;
  }
  if (tensor_ == tensors_.size()) return {};
  const Tensor& tensor = tensors_[tensor_];
  const int64_t n = tensor.elements();
  const int64_t count = std::min(n - done_, kChunkBytes / static_cast<int64_t>(dtype_size(tensor.dtype)));
  done_ += count;
  return tensor.view({n}).slice(done_ - count, count);
}

void Readback::copy_to(int buffer) {
  Buffer& to = buffers_[buffer];
  const Tensor from = cut();
  to.chunk = from ? Tensor{to.memory.data, from.shape, from.dtype, {}} : Tensor{};
  if (!from) return;
  copy(ctx_, from, to.chunk);
  to.copied.set(ctx_);
}

Tensor Readback::next() {
  if (!arena_) return cut();
  Buffer& ready = buffers_[current_];
  current_ = 1 - current_;
  copy_to(current_);
  ready.copied.wait();
  return ready.chunk;
}

}  // namespace mixtune
