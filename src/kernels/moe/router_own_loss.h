// Losses that are sums over a rank's own tokens and documents, so that they need no other rank's counts: the z-loss and
// the load-balancing loss of each document (docs/router.md). Both read a layer's logits [T, E], of which rows
// [0, live) count. loss [1] fp64 += the sum, unscaled. dlogits [T, E] += scale * its gradient.
#pragma once

#include "config/router_scores.h"
#include "tensor/ctx.h"

namespace mixtune {

// Sum over tokens of logsumexp(logits)^2.
struct RouterZLoss {
  Tensor logits;
  int64_t live;
  double scale;
  Tensor dlogits, loss;
};
void router_z_loss(Ctx& ctx, const RouterZLoss& args);

// Sum over documents of E / (k t^2) * sum_e n_e P_e, where t is the tokens of the document, n_e its pairs routed to
// expert e, a constant, and P_e the sum of its tokens' probabilities for e: 1 for a balanced document.
// experts [T, k] int32; doc_offsets [D + 1] int32, which ends at `live`.
struct RouterSequenceLoss {
  Tensor logits, experts, doc_offsets;
  int64_t live;
  double scale;
  Tensor dlogits, loss;
  Scoring scoring = Scoring::kSoftmax;  // of the probabilities (router.h)
};
void router_sequence_loss(Ctx& ctx, const RouterSequenceLoss& args);

// What router_sequence_loss takes of the stack.
struct RouterSequenceScratch {
  Tensor prob_grad;  // [D, E] fp64: of each document, d(its loss) / d(a token's probability), unscaled
  Tensor losses;     // [live] fp64: each token's part
};

}  // namespace mixtune
