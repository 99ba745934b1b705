// Attention by cuDNN's fused kernels. attention_cuda.cpp chooses them where they serve.
#pragma once

#include "kernels/warm_up.h"

namespace mixtune::cuda {

// True for bf16 on a Hopper or a data-centre Blackwell, with a head_dim that cuDNN's kernels for packed documents take.
bool cudnn_attention_supports(int compute_capability, const AttentionShape& shape, DType dtype);

// attention.h's functions, where cuDNN supports them; lse is fp32. Forward gives the same bits every time. Backward
// does not: it adds up dq in no fixed order. It takes AttentionPlanKey::backward_bytes of ctx.stack.
void cudnn_attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out,
                             const Tensor& lse);
void cudnn_attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args);

// Builds the plans for all batches within the limits. Where that fails, warns, and cudnn_attention_works is false.
void cudnn_attention_warm_up(Ctx& ctx, const AttentionShape& shape, const BatchLimits& limits);
bool cudnn_attention_works(Gpu& gpu);

// True where the shape's documents are of one length, and warm-up has built plans for just these. Both passes take
// them; between the two, lse is [document][head][token].
bool cudnn_attention_has_equal_plans(Gpu& gpu, const AttentionShape& shape);

}  // namespace mixtune::cuda
