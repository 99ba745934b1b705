#include "kernels/no_cuda.h"

#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

void adapted_swiglu_backward(Ctx&, const AdaptedSwigluBackward&, const AdaptedSwigluScratch&) {
  no_cuda();
}
void adapted_swiglu_forward(Ctx&, const AdaptedSwiglu&) {
  no_cuda();
}
void draw_experts(Ctx&, const DrawExperts&) {
  no_cuda();
}
void drop_pairs(Ctx&, const DropPairs&) {
  no_cuda();
}
void number_rows(Ctx&, const Tensor&, int64_t, const Tensor&) {
  no_cuda();
}
void permute_invert(Ctx&, const Tensor&, const Tensor&) {
  no_cuda();
}
void permute_map(Ctx&, const PermuteMap&) {
  no_cuda();
}
void permute_rows(Ctx&, const Tensor&, const Tensor&, int64_t, const Tensor&) {
  no_cuda();
}
void permute_weights(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void router_backward(Ctx&, const RouterBackward&) {
  no_cuda();
}
void router_forward(Ctx&, const RouterForward&) {
  no_cuda();
}
void router_health(Ctx&, const RouterHealth&, const Tensor&) {
  no_cuda();
}
void router_jitter(Ctx&, const RouterJitter&) {
  no_cuda();
}
void router_logits(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void router_logits_backward(Ctx&, const RouterLogitsBackward&) {
  no_cuda();
}
void router_loss(Ctx&, const RouterLoss&) {
  no_cuda();
}
void router_sequence_loss(Ctx&, const RouterSequenceLoss&, const RouterSequenceScratch&) {
  no_cuda();
}
void router_z_loss(Ctx&, const RouterZLoss&, const Tensor&) {
  no_cuda();
}
void sinkhorn(Ctx&, const Sinkhorn&) {
  no_cuda();
}
void unpermute_rows(Ctx&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}
void unpermute_weights(Ctx&, const Tensor&, const Tensor&, const Tensor&) {
  no_cuda();
}

}  // namespace mixtune::cuda
