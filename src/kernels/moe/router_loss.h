// Auxiliary losses of the router: from the counts of a forward pass to a value and the gradients backward needs.
#pragma once

#include "config/config.h"
#include "tensor/ctx.h"

namespace mixtune {

// stats [L, 2, E] fp64: for each layer and expert, routed pairs n and summed probabilities P over `tokens` tokens.
// prob_grad [L, E] fp64 = scale * d(loss) / d(probability of a token for the expert), equal for all tokens.
// loss [1] fp64 += the loss, unscaled.
//   huggingface: E * sum_e f_e p_e with f_e, p_e the means of n and P over the tokens of all layers pooled
//   (transformers' load_balancing_loss_func; equals k at perfect balance).
struct RouterLoss {
  RouterLossType type;
  Tensor stats;
  int64_t tokens;
  double scale;
  Tensor prob_grad, loss;
};
void router_loss(Ctx& ctx, const RouterLoss& args);

}  // namespace mixtune
