#include "checkpoint/upload.h"

#include "kernels/cast.h"

namespace mixtune {

void upload(Ctx& ctx, std::span<const std::byte> host, DType dtype, const Tensor& to) {
  const Tensor from{const_cast<std::byte*>(host.data()), to.shape, dtype, {}};
  if (dtype == to.dtype) return copy(ctx, from, to);
  const Stack::Frame frame(ctx.stack);
  const Tensor staged = ctx.stack.push("weights in the type of the checkpoint", to.shape, dtype);
  copy(ctx, from, staged);
  cast(ctx, staged, to);
}

}  // namespace mixtune
