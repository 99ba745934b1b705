// The router: top-k of the logits, and the weights that their scores make (docs/design.md, section 4).
#pragma once

#include "config/router_scores.h"
#include "tensor/ctx.h"

namespace mixtune {

// Limits of a GPU's kernels; the CPU's take any numbers.
constexpr int64_t kMaxGpuExperts = 1024, kMaxGpuExpertsPerToken = 32;

// logits [T, E] = x [T, H] weight^T, weight [E, H]. On a GPU logits are fp32, accumulated in fp32.
void router_logits(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& logits);

// dx [T, H] += dlogits weight; dweight [E, H] = dlogits^T x, or += with accumulate (skipped where dweight is empty).
struct RouterLogitsBackward {
  Tensor x, weight, dlogits;
  Tensor dx, dweight;
  bool accumulate = false;
};
void router_logits_backward(Ctx& ctx, const RouterLogitsBackward& args);

// Rows [0, live) of logits [T, E]: experts [T, k] int32 holds the k largest logits' indices, largest first, ties to the
// lower index (with a bias [E] fp32: of the sums of it and the logits' sigmoids; with offsets [E]: of them and the
// logits); weights [T, k] what `scores` makes of the chosen experts' logits. Dead rows: experts -1, weights 0.
// stats [2, E] fp64 = for each expert, its routed pairs; the sum of its probabilities over live rows. Probabilities are
// the softmax over all logits, or their sigmoids divided by the sum of those.
struct RouterForward {
  Tensor logits;
  int64_t live;
  Tensor experts, weights, stats;
  bool forced = false;  // experts is given, k different ones for each live row, -1 for dead ones
  RouterScores scores = {};
  Tensor bias = {};     // empty: none
  Tensor offsets = {};  // of the logits' dtype (sinkhorn.h); empty: none. Not beside a bias
};
void router_forward(Ctx& ctx, const RouterForward& args);

// dlogits [T, E] = the gradient through the weights from dweights [T, k], plus that through the probabilities from
// prob_grad [E] fp64, the gradient of an auxiliary loss with respect to every live token's probabilities (empty: none).
// Dead rows: 0.
struct RouterBackward {
  Tensor logits, experts, weights, dweights;
  Tensor prob_grad;
  int64_t live;
  Tensor dlogits;
  RouterScores scores = {};
};
void router_backward(Ctx& ctx, const RouterBackward& args);

}  // namespace mixtune
