#include "kernels/warm_up.h"

#include "kernels/cuda_ops.h"

namespace mixtune {

void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits) {
  if (ctx.gpu) cuda::begin_warm_up(ctx, shape, dtype, limits);
}

void finish_warm_up(Ctx& ctx) {
  if (ctx.gpu) cuda::finish_warm_up(ctx);
}

std::string attention_backend(Ctx& ctx, const AttentionShape& shape, DType dtype) {
  return ctx.gpu ? cuda::attention_backend(*ctx.gpu, shape, dtype) : "own kernels";
}

}  // namespace mixtune
