// Load-balancing losses over the tokens of an accumulation step: from the counts of a forward pass to a value and the
// gradients backward needs. docs/router.md has them beside those of router_own_loss.h.
#pragma once

#include "config/config.h"
#include "tensor/ctx.h"

namespace mixtune {

// stats [L, 2, E] fp64: for each layer and expert, routed pairs n and summed probabilities P over `tokens` tokens.
// prob_grad [L, E] fp64 = or (accumulate) += scale * d(loss) / d(probability of a token for the expert), equal for all
// tokens. loss [1] fp64 += the loss, unscaled. Counts are constants to the gradient.
//   kHuggingface: E * sum_e f_e p_e with f_e, p_e the means of n and P over the tokens of all layers pooled
//   (transformers' load_balancing_loss_func; equals k at perfect balance).
//   kSwitch: sum over layers of E / k * sum_e f_e p_e with f_e, p_e the layer's own means (Megatron-Core's aux_loss;
//   each layer's is 1 at perfect balance).
//   kGlobal: the same, but f_e is the mean over counted_tokens tokens: those of this accumulation step and of earlier
//   ones, whose pairs are in `counts` [L, E] fp64, to which this one's are added first.
struct RouterLoss {
  RouterLossType type;
  Tensor stats;
  int64_t tokens;
  double scale;
  Tensor prob_grad, loss;
  bool accumulate = false;
  int64_t experts_per_token = 1;  // k
  Tensor counts = {};
  int64_t counted_tokens = 0;
};
void router_loss(Ctx& ctx, const RouterLoss& args);

}  // namespace mixtune
