// The CUDA half of the router's and the permutations' ops; kernels/cuda_ops.h says what holds for all.
#pragma once

#include "kernels/moe/adapted_swiglu.h"
#include "kernels/moe/capacity.h"
#include "kernels/moe/permute.h"
#include "kernels/moe/router.h"
#include "kernels/moe/router_health.h"
#include "kernels/moe/router_loss.h"
#include "kernels/moe/router_noise.h"
#include "kernels/moe/router_own_loss.h"
#include "kernels/moe/sinkhorn.h"

namespace mixtune::cuda {

// Of a warp's columns the sum over them, for each row; of the rows of a chunk the sums of gradients.
constexpr int64_t kSwigluChunkRows = 1024;
constexpr int64_t swiglu_warp_columns(int64_t rank) {
  return rank <= 16 ? 32 : 16;
}
struct AdaptedSwigluScratch {
  Tensor row_sums;    // [warps, R] fp32
  Tensor chunk_sums;  // [chunks, all u's columns that have a gradient, then v's; F] fp32
};
void adapted_swiglu_backward(Ctx& ctx, const AdaptedSwigluBackward& args, const AdaptedSwigluScratch& scratch);
void adapted_swiglu_forward(Ctx& ctx, const AdaptedSwiglu& args);
void draw_experts(Ctx& ctx, const DrawExperts& args);
void drop_pairs(Ctx& ctx, const DropPairs& args);
void number_rows(Ctx& ctx, const Tensor& slot_of_row, int64_t first, const Tensor& numbers);
void permute_invert(Ctx& ctx, const Tensor& row_of_slot, const Tensor& slot_of_row);
void permute_map(Ctx& ctx, const PermuteMap& args);
void permute_rows(Ctx& ctx, const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows);
void permute_weights(Ctx& ctx, const Tensor& weights, const Tensor& slot_of_row, const Tensor& row_weights);
void router_backward(Ctx& ctx, const RouterBackward& args);
void router_forward(Ctx& ctx, const RouterForward& args);
void router_health(Ctx& ctx, const RouterHealth& args, const Tensor& parts);
void router_jitter(Ctx& ctx, const RouterJitter& args);
void router_logits(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& logits);
void router_logits_backward(Ctx& ctx, const RouterLogitsBackward& args);
void router_loss(Ctx& ctx, const RouterLoss& args);
void router_sequence_loss(Ctx& ctx, const RouterSequenceLoss& args, const RouterSequenceScratch& scratch);
void router_z_loss(Ctx& ctx, const RouterZLoss& args, const Tensor& squares);
void sinkhorn(Ctx& ctx, const Sinkhorn& args);
void unpermute_rows(Ctx& ctx, const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y);
void unpermute_weights(Ctx& ctx, const Tensor& row_weights, const Tensor& row_of_slot, const Tensor& weights);

}  // namespace mixtune::cuda
