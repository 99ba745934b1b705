// mixtune's own attention kernels: any head_dim up to 256, fp32 and bf16, the same bits every time.
#pragma once

#include "kernels/attention/attention.h"

namespace mixtune::cuda {

// attention.h's functions. bf16 with a head_dim that is a multiple of 8 up to 128 is multiplied on tensor cores
// (probabilities and their gradients rounded to bf16); all else in exact fp32. lse is fp32.
void flash_attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out,
                             const Tensor& lse);
void flash_attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args);

}  // namespace mixtune::cuda
