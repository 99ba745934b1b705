// The router's losses of a micro-batch: their values, and what they add to the backward pass of its layers.
#pragma once

#include "config/router_losses.h"
#include "tensor/ctx.h"

namespace mixtune {

// The losses that are made of all ranks' counts are gradients already; the others are computed layer by layer.
struct RouterGradients {
  Tensor probabilities;  // [L, E] fp64, the same for all tokens; empty: none
  RouterLosses scales;   // of kZ and kSequence
  Tensor sums;           // [kRouterLossTypes] fp64, to which each loss is added, unscaled
};

struct RouterLossInputs {
  RouterLosses scales;        // by which each loss's gradient is multiplied
  Tensor stats;               // [L, 2, E] fp64, summed over all ranks (kernels/moe/router_loss.h)
  int64_t tokens;             // that these are of
  int64_t experts_per_token;  // k
  Tensor counts;              // [L, E] fp64 of kGlobal: gets the pairs of this accumulation step added
  int64_t counted_tokens;     // of kGlobal: of earlier accumulation steps and this one
  Tensor sums;                // [kRouterLossTypes] fp64
};
// Adds the losses that are made of all ranks' counts to their sums. Pushes the gradients on the stack.
RouterGradients router_gradients(Ctx& ctx, const RouterLossInputs& args);

}  // namespace mixtune
