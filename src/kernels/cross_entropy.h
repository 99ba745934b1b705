// Cross-entropy of rows of logits.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// losses[n] = (logsumexp(logits[n]) - logits[n, targets[n]]) * weights[n], fp64; and, unless dlogits is empty,
// dlogits[n] = (softmax(logits[n]) - onehot(targets[n])) * scale * weights[n].
// logits [N, V] (fp32 on a GPU), targets [N] int32 in [0, V), losses [N] fp64, dlogits [N, V] in the model's dtype; of
// the dtype of logits it may be logits. weights [N] fp32, or empty: each is 1, with the same bits.
struct CrossEntropy {
  Tensor logits, targets, losses, dlogits;
  Tensor weights = {};
  double scale = 1;
};
void cross_entropy(Ctx& ctx, const CrossEntropy& args);

}  // namespace mixtune
