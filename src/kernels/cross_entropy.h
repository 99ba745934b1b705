// Cross-entropy of rows of logits.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// losses[n] = logsumexp(logits[n]) - logits[n, targets[n]], fp64.
// With `gradient`, logits become dlogits: (softmax(logits[n]) - onehot(targets[n])) * scale.
// logits [N, V], targets [N] int32 in [0, V), losses [N] fp64.
struct CrossEntropy {
  Tensor logits, targets, losses;
  bool gradient = false;
  double scale = 1;
};
void cross_entropy(Ctx& ctx, const CrossEntropy& args);

}  // namespace mixtune
