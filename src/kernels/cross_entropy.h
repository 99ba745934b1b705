// Cross-entropy of rows of logits.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// losses[n] = logsumexp(logits[n]) - logits[n, targets[n]], fp64; and, unless dlogits is empty,
// dlogits[n] = (softmax(logits[n]) - onehot(targets[n])) * scale.
// logits [N, V] (fp32 on a GPU), targets [N] int32 in [0, V), losses [N] fp64, dlogits [N, V] in the model's dtype; of
// the dtype of logits it may be logits.
struct CrossEntropy {
  Tensor logits, targets, losses, dlogits;
  double scale = 1;
};
void cross_entropy(Ctx& ctx, const CrossEntropy& args);

}  // namespace mixtune
