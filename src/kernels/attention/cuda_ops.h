// The CUDA half of attention; kernels/cuda_ops.h says what holds for all.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/attention/cached_attention.h"

namespace mixtune::cuda {

void append_to_cache(Ctx& ctx, const CachedTokens& tokens);
void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args);
std::string attention_backend(Gpu& gpu, const AttentionShape& shape, DType dtype);
void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse);
void cached_attention(Ctx& ctx, const CachedTokens& tokens, int64_t window, const Tensor& out);

}  // namespace mixtune::cuda
