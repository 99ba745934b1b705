// A batch through a model, the routing written down on one device and replayed on another.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "sameness.h"
#include "train/micro_batch.h"
#include "train/scalars.h"

namespace mixtune {

// What a model computes of a batch, in host memory.
struct Forward {
  HostCopy logits;                      // [live, V]
  std::vector<HostCopy> router_logits;  // of each layer, [T, E]
  std::vector<HostCopy> experts;        // of each layer, [T, k] int32
};

// forced: Saved.forced.
inline Forward run_forward(Instance& instance, const Batch& host_batch, const std::vector<Tensor>& forced = {},
                           const BetweenLayers& before_layer = {}) {
  Ctx& ctx = instance.ctx();
  const Mixtral& model = instance.model();
  const Frame frame(ctx);
  Saved saved = model.make_saved();
  saved.forced = forced;
  const auto [batch, h] = forward_pass(ctx, model, host_batch, saved, true, before_layer);
  const Tensor logits = ctx.stack.push("logits", {batch.live_tokens, model.config().vocab_size}, DType::kF32);
  model.head_logits(ctx, h.slice(0, batch.live_tokens), logits);
  Forward result{HostCopy(ctx, logits), {}, {}};
  for (const LayerSaved& layer : saved.layers) {
    result.router_logits.emplace_back(ctx, layer.router_logits);
    result.experts.emplace_back(ctx, layer.routing.experts);
  }
  return result;
}

// The experts of a Forward on another device.
class Replay {
 public:
  Replay(Instance& instance, const Forward& forward)
      : arena_("replayed routing", instance.ctx().device,
               forward.experts.size() * align_up(forward.experts[0].tensor().bytes())) {
    for (const HostCopy& experts : forward.experts) {
      layers_.push_back(arena_.allocate("experts", experts.tensor().shape, DType::kI32));
      copy(instance.ctx(), experts.tensor(), layers_.back());
    }
    wait(instance.ctx());
  }

  const std::vector<Tensor>& layers() const { return layers_; }
  // Those of layers [0, end); in the others the router chooses.
  std::vector<Tensor> layers_before(size_t end) const {
    std::vector<Tensor> layers = layers_;
    std::fill(layers.begin() + end, layers.end(), Tensor{});
    return layers;
  }

 private:
  Arena arena_;
  std::vector<Tensor> layers_;
};

// An accumulation step's loss, and its gradients in host memory.
struct Backward {
  double loss;
  HostCopies gradients;
};

inline int64_t targets_of(std::span<const Batch> batches) {
  int64_t targets = 0;
  for (const Batch& batch : batches) targets += batch.target_tokens();
  return targets;
}

// forced: of each micro-batch; empty: the router chooses. targets: of all ranks; 0: there is one. With several ranks
// and zero_stage 0, the sums over all of them.
inline Backward run_backward(Instance& instance, std::span<const Batch> micro_batches,
                             const std::vector<std::vector<Tensor>>& forced = {}, int64_t targets = 0) {
  Ctx& ctx = instance.ctx();
  State& state = instance.state();
  const double router_scale =
      instance.model().config().router_aux_loss_coef / static_cast<double>(micro_batches.size());
  const double token_scale = 1 / static_cast<double>(targets > 0 ? targets : targets_of(micro_batches));
  Scalars losses(ctx, "losses", kLosses);
  Saved saved = instance.model().make_saved();
  state.gradients().begin_step();
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    if (!forced.empty()) saved.forced = forced[i];
    forward_backward(ctx, instance.model(), micro_batches[i], saved,
                     {.token_scale = token_scale, .router = {RouterLossType::kHuggingface, router_scale}},
                     losses.slice(0, kLosses));
  }
  state.gradients().finish(ctx);
  instance.ranks().data->all_reduce(ctx, "losses", losses.slice(0, 1));
  const double* sums = losses.read(ctx);
  return {token_scale * sums[0] + router_scale * sums[loss_index(RouterLossType::kHuggingface)],
          HostCopies(ctx, state, [&](int p) { return state.gradients().finished(ctx, p); })};
}

// The tensor of a Hugging Face tensor's name among copies of a State's.
inline std::map<std::string, Tensor> by_hub_name(const State& state, const HostCopies& copies) {
  std::map<std::string, Tensor> tensors;
  for_each_hub_tensor(
      state, [&](int p) { return copies[p]; },
      [&](const HfBlock& slice, const Tensor& tensor) { tensors[slice.name] = tensor; });
  return tensors;
}

}  // namespace mixtune
