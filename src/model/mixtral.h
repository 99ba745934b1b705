// The Mixtral decoder (Jiang et al. 2024), forward and backward by hand.
//
// T rows of a batch (a multiple of kRowAlignment), H hidden, E experts, k experts a token, R routed rows, F ffn, V
// vocab. The model keeps no step state: what backward needs is in a caller-owned Saved, whose tensors live on the
// stack.
#pragma once

#include <memory>
#include <vector>

#include "data/batch.h"
#include "kernels/attention.h"
#include "kernels/rms_norm.h"
#include "model/dispatcher.h"
#include "model/params.h"
#include "precision/recipe.h"

namespace mixtune {

struct LayerSaved {
  Tensor input;             // [T, H] residual stream before the layer
  Tensor input_rstd;        // [T]
  Tensor qkv;               // [T, q + 2 kv], turned by RoPE
  Tensor attention;         // [T, q]
  Tensor lse;               // [T, heads]
  Tensor middle;            // [T, H] residual stream between attention and experts
  Tensor middle_rstd;       // [T]
  Tensor router_logits;     // [T, E]
  Routing routing;          // [T, k]
  DispatchHandle dispatch;  // routing, sorted by expert
  Tensor gate_up;           // [R, 2F]
};

struct Saved {
  Tensor rope_table;               // [T, head_dim]
  Tensor router_stats;             // [L, 2, E] fp64, for router_loss
  std::vector<LayerSaved> layers;  // sized once by Mixtral::make_saved
};

class Mixtral {
 public:
  // Keeps references: recipe, dispatcher and state outlive the model.
  Mixtral(const MixtralConfig& config, const ModelParams& params, State& state, const Recipe& recipe,
          const Dispatcher& dispatcher)
      : config_(config), params_(params), state_(state), recipe_(recipe), dispatcher_(dispatcher) {}

  const MixtralConfig& config() const { return config_; }

  Saved make_saved() const { return {.layers = std::vector<LayerSaved>(config_.num_hidden_layers)}; }

  // Pushes the embedded tokens [T, H], the RoPE table and the router's stats: what the layers of a batch start from.
  Tensor embed(Ctx& ctx, const Batch& batch, Saved& saved) const;
  // Adds dh [T, H] to the embedding's gradient.
  void embed_backward(Ctx& ctx, const Batch& batch, const Tensor& dh) const;

  // Layers [begin, end) from h [T, H]; pushes and returns their output. `keep`: the layers' saved tensors stay on the
  // stack for backward; otherwise only the output does.
  struct LayerRange {
    int64_t begin, end;
  };
  LayerRange all_layers() const { return {0, config_.num_hidden_layers}; }
  Tensor layers(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& h, Saved& saved, bool keep) const;
  // dh [T, H]: the gradient of the range's output becomes that of its input. prob_grad [L, E] fp64: the router loss's
  // gradient (router_loss.h); empty: none.
  void layers_backward(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& dh, const Tensor& prob_grad,
                       Saved& saved) const;

  // Sum of the batch's token losses from h [T, H], the output of the last layer. With dh: h's gradient, and the head's
  // weight gradients, both times `scale`. dh may not be h. Only rows with a target are computed, and logits exist for a
  // chunk of them at a time.
  struct HeadLoss {
    Tensor h;
    Tensor dh;
    double scale = 1;
  };
  double head_loss(Ctx& ctx, const Batch& batch, const HeadLoss& args) const;
  // logits [n, V] of h [n, H].
  void head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const;

 private:
  // One layer from saved.input to out; pushes what LayerSaved holds. stats [2, E].
  void layer(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table, const Tensor& stats,
             LayerSaved& saved, const Tensor& out) const;
  void attention_forward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                               LayerSaved& saved, const Tensor& normed) const;
  void expert_forward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& stats, LayerSaved& saved,
                            const Tensor& normed) const;
  // In both, dh [T, H] goes from the gradient of the block's output to that of its input.
  void attention_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                                const LayerSaved& saved, const Tensor& dh) const;
  void expert_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& prob_grad,
                             const LayerSaved& saved, const Tensor& dh) const;

  // Sum of the losses of normed rows [N, H]; with dnormed, their gradient and the LM head's.
  struct ChunkedLoss {
    Tensor normed, targets, dnormed;
    double scale;
  };
  double chunked_loss(Ctx& ctx, const ChunkedLoss& args) const;
  void final_norm(Ctx& ctx, const Tensor& h, const Tensor& normed, const Tensor& rstd) const;

  AttentionShape attention_shape(const Batch& batch) const;
  Tensor push(Ctx& ctx, const char* name, Shape shape) const { return ctx.stack.push(name, shape, state_.dtype()); }
  WeightGradient weight_gradient(int param) const;
  // y = x W^T; and its backward, with the parameter's own gradient.
  void linear(Ctx& ctx, int param, const Tensor& x, const Tensor& y) const;
  void linear_backward(Ctx& ctx, int param, Recipe::LinearBackward args) const;
  void norm_backward(Ctx& ctx, int param, RmsNormBackward args) const;

  MixtralConfig config_;
  ModelParams params_;
  State& state_;
  const Recipe& recipe_;
  const Dispatcher& dispatcher_;
};

}  // namespace mixtune
