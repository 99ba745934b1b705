// Readback: tensors seen from the host, a chunk at a time.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "tensor/ctx.h"
#include "tensor/fence.h"

namespace mixtune {

// Through two pinned buffers: while the host uses one chunk, the next is being copied. What the tensors hold when they
// are read is what the ctx's stream has made of them.
class Readback {
 public:
  static constexpr int64_t kChunkBytes = 16 << 20;

  enum class Buffers { kNone, kTwo };  // none: the tensors are in host memory, chunks are parts of them

  Readback(Ctx& ctx, Buffers buffers);

  // What next() gives from now on.
  void start(std::vector<Tensor> tensors);
  // The next chunk, of one dimension: the tensors follow each other in order, a chunk is of one of them. Valid until
  // the next call. Empty after the last.
  Tensor next();

 private:
  Tensor cut();              // the next chunk, where it is
  void copy_to(int buffer);  // the next chunk, on its way

  Ctx& ctx_;
  std::vector<Tensor> tensors_;
  size_t tensor_ = 0;  // of the next chunk
  int64_t done_ = 0;   // elements of it that are in earlier chunks
  std::optional<Arena> arena_;
  struct Buffer {
    Tensor memory, chunk;
    Fence copied;
  };
  std::array<Buffer, 2> buffers_;
  int current_ = 0;
};

}  // namespace mixtune
