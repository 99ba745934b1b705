// One micro-batch through the model.
#pragma once

#include "config/config.h"
#include "model/mixtral.h"

namespace mixtune {

struct MicroBatchLoss {
  double token_sum = 0;  // sum of token losses
  double router = 0;     // auxiliary loss of this accumulation step, unscaled
};

// The losses, and the gradients of token_scale * token_sum + router_scale * router, written or added to State.
struct LossScales {
  RouterLossType router_loss_type = RouterLossType::kHuggingface;
  double token_scale = 1;
  double router_scale = 0;
};
MicroBatchLoss forward_backward(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved,
                                const LossScales& scales);

// The sum of token losses alone.
double forward_loss(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved);

}  // namespace mixtune
