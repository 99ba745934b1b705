// Readback: shows tensors to the host, a chunk at a time.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "tensor/ctx.h"
#include "tensor/fence.h"

namespace mixtune {

// It has two pinned buffers: while the host uses one chunk, the next is being copied. Tensors are read as the ctx's
// stream has left them.
class Readback {
 public:
  static constexpr int64_t kChunkBytes = 16 << 20;

  enum class Buffers { kNone, kTwo };  // none: the tensors are in host memory, chunks are parts of them

  Readback(Ctx& ctx, Buffers buffers);

  // Sets the tensors that next() gives.
  void start(std::vector<Tensor> tensors);
  // The next chunk, of one dimension. The tensors follow each other in order; a chunk is of one of them. Valid until
  // the next call. Empty after the last.
  Tensor next();

 private:
  Tensor cut();              // the next chunk, in its place
  void copy_to(int buffer);  // starts copying the next chunk

  Ctx& ctx_;
  std::vector<Tensor> tensors_;
  size_t tensor_ = 0;  // of the next chunk
  int64_t done_ = 0;   // its elements that are in earlier chunks
  std::optional<Arena> arena_;
  struct Buffer {
    Tensor memory, chunk;
    Fence copied;
  };
  std::array<Buffer, 2> buffers_;
  int current_ = 0;
};

}  // namespace mixtune
