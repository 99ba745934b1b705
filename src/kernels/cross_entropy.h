// Cross-entropy of rows of logits.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

constexpr int32_t kIgnoreTarget = -100;

// losses[t] = logsumexp(logits[t]) - logits[t, targets[t]], fp64; 0 where the target is kIgnoreTarget.
// With `gradient`, logits become dlogits: (softmax(logits[t]) - onehot(targets[t])) * scale, 0 where ignored.
// logits [T, V], targets [T] int32, losses [T] fp64.
struct CrossEntropy {
  Tensor logits, targets, losses;
  bool gradient = false;
  double scale = 1;
};
void cross_entropy(Ctx& ctx, const CrossEntropy& args);

}  // namespace mixtune
