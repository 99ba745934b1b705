// The Mixtral decoder (Jiang et al. 2024), forward and backward by hand.
//
// T rows of a batch (a multiple of kRowAlignment), H hidden, E experts, k experts a token, R routed rows, F ffn, V
// vocab. The model keeps no step state: what backward needs is in a caller-owned Saved, whose tensors live on the
// stack.
#pragma once

#include <memory>
#include <vector>

#include "data/batch.h"
#include "kernels/attention/attention.h"
#include "kernels/rms_norm.h"
#include "model/dispatcher.h"
#include "model/params.h"
#include "precision/recipe.h"

namespace mixtune {

// Statistics (rstd, lse, the router's tensors, row weights) are fp32 in a bf16 model.
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
  Tensor gate_up;           // [R, 2F]; empty: recomputed in backward
  size_t mark = 0;          // of the stack, before what the experts keep: dispatch.kept and gate_up
};

struct Saved {
  Tensor rope_table;               // [T, head_dim]
  Tensor router_stats;             // [L, 2, E] fp64, for router_loss
  std::vector<LayerSaved> layers;  // sized once by Mixtral::make_saved
  int64_t recomputed = 0;          // layers that were to keep more of their experts than fits
  std::vector<Tensor> forced;  // for tests and benchmarks: each layer's experts [T, k] int32; empty: the router chooses
};

class Mixtral {
 public:
  // Keeps references: recipe, dispatcher and state outlive the model.
  Mixtral(const MixtralConfig& config, const ModelParams& params, State& state, const Recipe& recipe,
          const Dispatcher& dispatcher, Recompute recompute = Recompute::kNone)
      : config_(config),
        params_(params),
        state_(state),
        recipe_(recipe),
        dispatcher_(dispatcher),
        recompute_(recompute) {}

  const MixtralConfig& config() const { return config_; }

  AttentionShape attention_shape(const Batch& batch) const;

  // bytes[l]: what the stack must still hold after layer l has kept nothing of its experts, to the end of backward.
  // What would not leave that much is recomputed: the gate-up output, computed again in backward; and, by all ranks
  // that share experts together, the rows that came from other ranks, sent again. Empty: nothing is recomputed.
  void set_still_needed(std::vector<size_t> bytes) { still_needed_ = std::move(bytes); }

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
  // What is kept is less with recompute: selective drops the gate-up output, full all but the layer's input and
  // routing.
  Tensor layers(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& h, Saved& saved, bool keep) const;
  // dh [T, H]: the gradient of the range's output becomes that of its input. prob_grad [L, E] fp64: the router loss's
  // gradient (router_loss.h); empty: none.
  void layers_backward(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& dh, const Tensor& prob_grad,
                       Saved& saved) const;

  // loss [1] fp64 += the weighted sum of the batch's token losses from h [T, H], the output of the last layer. With dh:
  // h's gradient, and the head's weight gradients, both times `scale`. dh may not be h. Only rows with a target are
  // computed, and logits exist for a chunk of them at a time.
  struct HeadLoss {
    Tensor h, loss;
    Tensor dh;
    double scale = 1;
  };
  void head_loss(Ctx& ctx, const Batch& batch, const HeadLoss& args) const;
  // logits [n, V] (fp32 in a bf16 model) of h [n, H].
  void head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const;

 private:
  // The tensors of LayerSaved, pushed in the order in which they are kept the longest.
  void push_routing(Ctx& ctx, LayerSaved& saved) const;
  void push_attention(Ctx& ctx, LayerSaved& saved) const;
  // The rows for which there is memory beside what is still to come.
  int64_t room_for_rows(const Ctx& ctx, int64_t layer, const LayerSaved& saved) const;
  // Pushes what `recompute` lets the experts keep, as far as that fits: false where not all does.
  bool keep_experts(Ctx& ctx, int64_t layer, LayerSaved& saved) const;
  void attention_forward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                               LayerSaved& saved, const Tensor& normed) const;
  void route(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& stats, LayerSaved& saved,
             const Tensor& normed, const Tensor& forced) const;
  void expert_forward_block(Ctx& ctx, const LayerParams& p, const LayerSaved& saved, const Tensor& normed) const;
  // In both, dh [T, H] goes from the gradient of the block's output to that of its input.
  // The experts' share of it: the gradients of their input and of the routing weights, and of the experts' weights.
  struct ExpertsBackward {
    Tensor normed, dh, dnormed, dweights;
  };
  void experts_backward(Ctx& ctx, const LayerParams& p, const LayerSaved& saved, const ExpertsBackward& args) const;
  void attention_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& rope_table,
                                const LayerSaved& saved, const Tensor& dh) const;
  void expert_backward_block(Ctx& ctx, const Batch& batch, const LayerParams& p, const Tensor& prob_grad,
                             const LayerSaved& saved, const Tensor& dh) const;

  // loss += the sum of the losses of normed rows [N, H]; with dnormed, their gradient and the LM head's.
  struct ChunkedLoss {
    Tensor normed, targets, weights, loss, dnormed;
    double scale;
  };
  void chunked_loss(Ctx& ctx, const ChunkedLoss& args) const;
  // Where the LM head's gradient is added up over chunks of rows; and the end of that.
  WeightGradient begin_head_gradient(Ctx& ctx) const;
  void finish_head_gradient(Ctx& ctx, const WeightGradient& sum) const;
  void final_norm(Ctx& ctx, const Tensor& h, const Tensor& normed, const Tensor& rstd) const;

  Tensor push(Ctx& ctx, const char* name, Shape shape) const {
    return ctx.stack.push(name, shape, state_.types().weights);
  }
  Tensor push_statistics(Ctx& ctx, const char* name, Shape shape) const {
    return ctx.stack.push(name, shape, statistics_dtype(state_.types().weights));
  }
  WeightGradient weight_gradient(int param) const;
  // y = x W^T; and its backward, with the parameter's own gradient.
  struct Projection {
    int param;
    const char* name;  // for the profiler
  };
  void linear(Ctx& ctx, const Projection& p, const Tensor& x, const Tensor& y) const;
  void linear_backward(Ctx& ctx, const Projection& p, Recipe::LinearBackward args) const;
  void norm_backward(Ctx& ctx, int param, RmsNormBackward args) const;

  MixtralConfig config_;
  ModelParams params_;
  State& state_;
  const Recipe& recipe_;
  const Dispatcher& dispatcher_;
  Recompute recompute_;
  std::vector<size_t> still_needed_;
};

}  // namespace mixtune
