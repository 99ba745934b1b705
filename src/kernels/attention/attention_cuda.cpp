// Attention on a GPU: by cuDNN or by mixtune's own kernels.
#include "kernels/attention/attention_backend.h"
#include "kernels/attention/attention_cudnn.h"
#include "kernels/attention/attention_cudnn_plan.h"
#include "kernels/attention/attention_flash.h"
#include "kernels/attention/cuda_ops.h"
#include "tensor/gpu.h"

namespace mixtune::cuda {

namespace {

bool use_cudnn(Gpu& gpu, const AttentionShape& shape, DType dtype) {
  return !gpu.options().deterministic && cudnn_attention_supports(gpu.compute_capability(), shape, dtype) &&
         cudnn_attention_works(gpu);
}

}  // namespace

std::string attention_backend(Gpu& gpu, const AttentionShape& shape, DType dtype) {
  return use_cudnn(gpu, shape, dtype) ? "cuDNN " + cudnn_version() : "own kernels";
}

void warm_up_attention(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits) {
  if (use_cudnn(*ctx.gpu, shape, dtype)) cudnn_attention_warm_up(ctx, shape, limits);
}

void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  const bool by_cudnn = use_cudnn(*ctx.gpu, shape, qkv.dtype);
  (by_cudnn ? cudnn_attention_forward : flash_attention_forward)(ctx, shape, qkv, out, lse);
}

void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  const bool by_cudnn = use_cudnn(*ctx.gpu, shape, args.qkv.dtype);
  (by_cudnn ? cudnn_attention_backward : flash_attention_backward)(ctx, shape, args);
}

}  // namespace mixtune::cuda
