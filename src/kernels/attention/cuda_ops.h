// The CUDA half of attention; kernels/cuda_ops.h says what holds for all.
#pragma once

#include "kernels/attention/attention.h"

namespace mixtune::cuda {

void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args);
std::string attention_backend(Gpu& gpu, const AttentionShape& shape, DType dtype);
void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse);

}  // namespace mixtune::cuda
