// What tells how a layer's router does, added up over the micro-batches of a step.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// The numbers of a tally: for each expert its routed pairs, then these.
enum RouterTally : int { kTallyTokens, kTallyEntropy, kTallySquares, kTallyNumbers };
constexpr int64_t router_tally_size(int64_t experts) {
  return experts + kTallyNumbers;
}

// tally [E + kTallyNumbers] fp64 += the first row of stats [2, E] fp64 (kernels/moe/router.h); the number of live
// tokens; of rows [0, live) of logits [T, E], the sum of -sum_e p_e log p_e, where p = softmax(row), in nats, and the
// sum of the squares of all logits. In an order that does not depend on threads.
struct RouterHealth {
  Tensor logits;
  int64_t live;
  Tensor stats, tally;
};
void router_health(Ctx& ctx, const RouterHealth& args);

// What router_health takes of the stack: [2, kHealthParts] fp64, the sums of entropies and of squares of each part of
// the tokens.
constexpr int64_t kHealthParts = 128;

}  // namespace mixtune
