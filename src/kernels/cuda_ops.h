// The CUDA half of the ops: the functions that x.cpp calls on a GPU and x.cu defines (no_cuda.cpp in a build without
// CUDA). Each family has its own such header in its folder; this one has the rest. Contracts are those of the ops' own
// headers. S is the model's dtype, fp32 or bf16; statistics (rstd, lse, logits and weights of the router, row weights,
// RoPE's table) are fp32.
#pragma once

#include "kernels/adapter.h"
#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/digest.h"
#include "kernels/dropout.h"
#include "kernels/embedding.h"
#include "kernels/fill.h"
#include "kernels/optimizer.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "kernels/warm_up.h"

namespace mixtune::cuda {

void add_sum(Ctx& ctx, const Tensor& values, const Tensor& total);
void adamw(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args);
void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);
void cast(Ctx& ctx, const Tensor& from, const Tensor& to);
void clip_scale(Ctx& ctx, const ClipScale& args);
void cross_entropy(Ctx& ctx, const CrossEntropy& args);
void digest(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& digests);
void drop_out(Ctx& ctx, const DropOut& args);
void embedding_backward(Ctx& ctx, const EmbeddingBackward& args);
void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y);
void expand_adapter(Ctx& ctx, const ExpandAdapter& args);
void fill_normal(Ctx& ctx, const FillNormal& args);
void finish_warm_up(Ctx& ctx);
void fold_adapter(Ctx& ctx, const FoldAdapter& args);
void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args);
void rms_norm_forward(Ctx& ctx, const RmsNormForward& args);
void rms_norm_recompute(Ctx& ctx, const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y);
void rope(Ctx& ctx, const RopeArgs& args);
void rope_table(Ctx& ctx, const Tensor& positions, double theta, const Tensor& table);
void sum_of_squares(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& sum);
void swiglu_backward(Ctx& ctx, const SwigluBackward& args);
void swiglu_forward(Ctx& ctx, const Tensor& gate_up, const Tensor& row_weights, const Tensor& act);

}  // namespace mixtune::cuda
