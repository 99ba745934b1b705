// The CUDA half of every op: what x.cpp calls on a GPU and x.cu defines (no_cuda.cpp in a build without CUDA).
// Contracts are those of the ops' own headers; S is the model's dtype, fp32 or bf16; statistics (rstd, lse, logits and
// weights of the router, row weights, RoPE's table) are fp32.
#pragma once

#include "kernels/attention.h"
#include "kernels/cast.h"
#include "kernels/cross_entropy.h"
#include "kernels/digest.h"
#include "kernels/embedding.h"
#include "kernels/fill.h"
#include "kernels/gemm.h"
#include "kernels/optimizer.h"
#include "kernels/permute.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/router_loss.h"
#include "kernels/swiglu.h"
#include "kernels/warm_up.h"

namespace mixtune::cuda {

void add_sum(Ctx& ctx, const Tensor& values, const Tensor& total);
void adamw(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args);
void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args);
std::string attention_backend(Gpu& gpu, const AttentionShape& shape, DType dtype);
void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse);
void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits);
void cast(Ctx& ctx, const Tensor& from, const Tensor& to);
void choose_gemms_by_rule(Gpu& gpu);
void clip_scale(Ctx& ctx, const ClipScale& args);
void cross_entropy(Ctx& ctx, const CrossEntropy& args);
void digest(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& digests);
std::string digest_of_gemm_choices(Gpu& gpu);
void embedding_backward(Ctx& ctx, const EmbeddingBackward& args);
void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y);
void fill_normal(Ctx& ctx, const FillNormal& args);
void finish_warm_up(Ctx& ctx);
void gemm(Ctx& ctx, const GemmArgs& args);
void grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args);
void grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args);
std::string kind_of_gemm_choices(Gpu& gpu);
std::string measured_gemm_choices(Gpu& gpu);
void permute_invert(Ctx& ctx, const Tensor& row_of_slot, const Tensor& slot_of_row);
void permute_map(Ctx& ctx, const PermuteMap& args);
void permute_rows(Ctx& ctx, const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows);
void permute_weights(Ctx& ctx, const Tensor& weights, const Tensor& slot_of_row, const Tensor& row_weights);
void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args);
void rms_norm_forward(Ctx& ctx, const RmsNormForward& args);
void rms_norm_recompute(Ctx& ctx, const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y);
void rope(Ctx& ctx, const RopeArgs& args);
void rope_table(Ctx& ctx, const Tensor& positions, double theta, const Tensor& table);
void router_backward(Ctx& ctx, const RouterBackward& args);
void router_forward(Ctx& ctx, const RouterForward& args);
void router_logits(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& logits);
void router_logits_backward(Ctx& ctx, const RouterLogitsBackward& args);
void router_loss(Ctx& ctx, const RouterLoss& args);
void sum_of_squares(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& sum);
void swiglu_backward(Ctx& ctx, const SwigluBackward& args);
void swiglu_forward(Ctx& ctx, const Tensor& gate_up, const Tensor& row_weights, const Tensor& act);
void take_gemm_choices(Gpu& gpu, const std::string& choices);
void unpermute_rows(Ctx& ctx, const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y);
void unpermute_weights(Ctx& ctx, const Tensor& row_weights, const Tensor& row_of_slot, const Tensor& weights);

}  // namespace mixtune::cuda
