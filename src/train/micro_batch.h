// forward_backward: one micro-batch through the model.
#pragma once

#include <functional>

#include "config/router_losses.h"
#include "model/instance.h"

namespace mixtune {

// Called on the way through the layers, which then run one by one, with the same result. It may change h.
using BetweenLayers = std::function<void(int64_t layer, const Tensor& h)>;

// What a micro-batch adds to losses [kLosses] fp64 on the device, unscaled: the weighted sum of this rank's token
// losses; the router's losses, in the order of RouterLossType, of this rank's tokens or of this accumulation step on
// all ranks.
constexpr int64_t kLosses = 1 + kRouterLossTypes, kOwnLosses = 1 + kOwnRouterLossTypes;
constexpr int64_t loss_index(RouterLossType type) {
  return 1 + static_cast<int64_t>(type);
}

// Writes or adds to State the gradients of the sum of the losses, each times its scale. `batch` is in host memory and
// stays as it is until a wait.
struct LossScales {
  double token_scale = 1;
  RouterLosses router = {};   // a loss without a scale is not computed
  Tensor router_counts = {};  // [L, E] fp64 of kGlobal: those of the step's earlier micro-batches; this one's are added
  int64_t counted_tokens = 0;           // step_tokens of these and of this one
  const Ranks* ranks = &single_rank();  // never null; their batches are one accumulation step
  BetweenLayers before_layer = {};      // forward_pass's
  BetweenLayers before_backward = {};   // with the gradient of each layer's output, the last layer's first
};
void forward_backward(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved, const LossScales& scales,
                      const Tensor& losses);

// The two halves of forward_backward. Several micro-batches can be between them at once, in any order. Each has a Saved
// of its own and a ctx with stacks of its own, where what the forward pass pushed stays until the caller releases it.
struct ForwardPass {
  Batch batch;  // on the device
  Tensor h;     // [T, H]: the output of the last layer
};
// before_layer: with each layer's input; and with the number of layers and the output of the last.
ForwardPass forward_pass(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved, bool for_backward,
                         const BetweenLayers& before_layer = {});
void backward_pass(Ctx& ctx, const Mixtral& model, const ForwardPass& forward, Saved& saved, const LossScales& scales,
                   const Tensor& losses);

// Adds to token_sum [1] fp64 on the device the weighted sum of token losses.
void forward_loss(Ctx& ctx, const Mixtral& model, const Batch& batch, Saved& saved, const Tensor& token_sum);

}  // namespace mixtune
