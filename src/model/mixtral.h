// The Mixtral decoder (Jiang et al. 2024), forward and backward by hand.
//
// T rows of a batch (a multiple of kRowAlignment), H hidden, E experts, k experts a token, R routed rows, F ffn, V
// vocab. The model keeps no step state: what backward needs is in a caller-owned Saved, whose tensors live on the
// stacks of the ctx.
#pragma once

#include <memory>
#include <vector>

#include "data/batch.h"
#include "kernels/attention/attention.h"
#include "kernels/rms_norm.h"
#include "model/adapter_use.h"
#include "model/dispatcher.h"
#include "model/draws.h"
#include "model/keeping.h"
#include "model/params.h"
#include "model/router.h"
#include "precision/recipe.h"

namespace mixtune {

class Mixtral {
 public:
  // Keeps references: recipe, dispatcher and state outlive the model.
  Mixtral(const MixtralConfig& config, const ModelParams& params, State& state, const Recipe& recipe,
          const Dispatcher& dispatcher, const Activations& activations)
      : config_(config),
        params_(params),
        state_(state),
        recipe_(recipe),
        dispatcher_(dispatcher),
        activations_(activations),
        keeping_(config, params, recipe, dispatcher, activations),
        router_({.scores = config.router_scores,
                 .bias = activations.expert_bias,
                 .noise = activations.router_noise,
                 .sinkhorn = activations.sinkhorn}) {}

  const MixtralConfig& config() const { return config_; }
  DType dtype() const { return activations_.dtype; }  // of activations
  const ModelParams& params() const { return params_; }

  AttentionShape attention_shape(const Batch& batch) const;

  // bytes[l]: what the stack must still hold after layer l has kept nothing of its experts, to the end of backward.
  // Tensors that would not leave that much are not kept: the gate-up output is computed again in backward, and the rows
  // that came from other ranks are sent again, by all ranks that share experts together. Empty: all are kept.
  void set_still_needed(std::vector<size_t> bytes) { keeping_.set_still_needed(std::move(bytes)); }

  Saved make_saved() const { return {.layers = std::vector<LayerSaved>(config_.num_hidden_layers)}; }

  // Pushes the RoPE table and the router's stats, which the layers of a batch share, whichever of them are run here.
  // All later passes of the batch are given the same ctx.
  void begin_batch(Ctx& ctx, const Batch& batch, Saved& saved) const;
  // Pushes and returns the embedded tokens [T, H], the input of the first layer.
  Tensor embed(Ctx& ctx, const Batch& batch) const;
  // Adds dh [T, H] to the gradients of the embedding and its adapter.
  void embed_backward(Ctx& ctx, const Batch& batch, const Tensor& dh) const;

  // Runs layers [begin, end) on h [T, H]; pushes and returns their output. `keep`: the layers' saved tensors stay on
  // the stack for backward, and the capacity of experts drops pairs; otherwise only the output stays, and none is
  // dropped.
  struct LayerRange {
    int64_t begin, end;
  };
  LayerRange all_layers() const { return {0, config_.num_hidden_layers}; }
  // With recompute less is kept: selective drops the gate-up output, full all but the layer's input and routing.
  Tensor layers(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& h, Saved& saved, bool keep) const;
  // Turns dh [T, H] from the gradient of the range's output into that of its input, and adds the router's
  // losses of the layers to their sums, those that are computed layer by layer.
  void layers_backward(Ctx& ctx, const Batch& batch, LayerRange range, const Tensor& dh, const RouterGradients& losses,
                       Saved& saved) const;

  // Adds to loss [1] fp64 the weighted sum of the batch's token losses, from h [T, H], the output of the last layer.
  // With dh, writes h's gradient there and adds the head's weight gradients, both times `scale`. dh may not be h. Only
  // rows with a target are computed, and logits exist for a chunk of them at a time.
  struct HeadLoss {
    Tensor h, loss;
    Tensor dh;
    double scale = 1;
    std::optional<uint64_t> noise = {};  // that of Saved
  };
  void head_loss(Ctx& ctx, const Batch& batch, const HeadLoss& args) const;
  // Writes logits [n, V] (fp32 in a bf16 model) of h [n, H].
  void head_logits(Ctx& ctx, const Tensor& h, const Tensor& logits) const;

 private:
  // One layer of one micro-batch.
  struct Layer {
    int64_t index;
    const LayerParams& params;
    const Batch& batch;
    Tensor rope_table;
    Tensor router_stats;  // [2, E]
    Tensor router_tally;  // router_health; or empty
    Tensor forced;        // experts [T, k]; empty: the router chooses
    Tensor dropped;       // [2]; empty: not counted
    std::optional<uint64_t> noise;
    LayerSaved& saved;
  };
  Layer layer(int64_t index, const Batch& batch, Saved& saved) const;
  // x [T, H] -> the layer's output.
  Tensor forward_layer(Ctx& ctx, const Layer& layer, const Tensor& x, Keeping::Forward& keeping) const;
  // Turns dh [T, H] from the gradient of the layer's output into that of its input; the blocks' backwards do so too.
  void backward_layer(Ctx& ctx, const Layer& layer, const RouterGradients& losses, const Tensor& dh) const;

  // Writes the residual stream after attention to saved.middle, and its norm to `normed`. What backward reads stays in
  // saved.
  void attention_block(Ctx& ctx, const Layer& layer, const Tensor& normed) const;
  void attention_block_again(Ctx& ctx, const Layer& layer) const;
  void attention_block_backward(Ctx& ctx, const Layer& layer, const Tensor& dh) const;
  // Writes the attention of saved.qkv: of a batch's documents, or of the sequences that it goes on with, for inference.
  void attend(Ctx& ctx, const Layer& layer) const;
  // Turns qkv by RoPE, in place.
  void turn(Ctx& ctx, const Layer& layer, const Tensor& qkv, bool inverse) const;

  // Routes `normed` to the experts that the router chooses, or to those that are forced on it.
  void route(Ctx& ctx, const Layer& layer, const Tensor& normed) const;
  // Writes the saved routing and logits, and what is counted of them.
  void choose_experts(Ctx& ctx, const Layer& layer, const Tensor& normed) const;
  // Reads the experts' input from `normed` and leaves the layer's output there.
  void experts(Ctx& ctx, const Layer& layer, const Tensor& normed) const;
  void expert_block_backward(Ctx& ctx, const Layer& layer, const RouterGradients& losses, const Tensor& dh) const;
  // Writes the gradients of the experts' input and of the routing weights.
  struct ExpertsBackward {
    Tensor normed, dh, dnormed, dweights;
  };
  void experts_backward(Ctx& ctx, const Layer& layer, const ExpertsBackward& args) const;
  // Adds the router's part to dnormed.
  struct RouteBackward {
    Tensor normed, dweights;
    const RouterGradients& losses;
    Tensor dnormed;
  };
  void route_backward(Ctx& ctx, const Layer& layer, const RouteBackward& args) const;

  // Adds to `loss` the sum of the losses of normed rows [N, H]. With dnormed: also their gradient, and the LM head's.
  struct ChunkedLoss {
    Tensor normed, targets, weights, loss, dnormed;
    double scale;
    Dropout dropout;  // of the head's adapter
  };
  void chunked_loss(Ctx& ctx, const ChunkedLoss& args) const;
  // A chunk's logits, and all gradients of those; `sums` are those of all chunks.
  struct HeadGradients {
    WeightGradient weight, a, b;
  };
  struct ChunkBackward {
    Tensor x, dlogits, dx;
    HeadGradients& sums;
  };
  void chunk_backward(Ctx& ctx, Adapter adapter, const ChunkBackward& args) const;
  // What the head's adapter drops out, of rows that are those of the batch with a target; `numbers` [n] is memory.
  Dropout head_dropout(Ctx& ctx, const Batch& batch, const std::optional<uint64_t>& noise) const;

  WeightGradient weight_gradient(int param) const;
  // What an adapter drops out of its input: the rows of the batch; or those of experts, which have numbers.
  Dropout dropout(const Layer& layer, Draw purpose, const Tensor& numbers = {}) const;
  // A layer's adapters beside its experts' weights, for the rows of `dispatch`.
  struct ExpertAdapters {
    AdapterUse gate_up, down;
  };
  ExpertAdapters expert_adapters(Ctx& ctx, const Layer& layer, const DispatchHandle& dispatch) const;
  // As recipes read it.
  Recipe::Weight operand(const WeightUse& weight, int param) const { return {*weight, param, state_.version(param)}; }
  // y = x W^T of a layer, by the recipe. The weight and its gradient are the parameter's own.
  struct Projection {
    int param;
    const AdapterParams& adapter;
    Dropout dropout;   // of the adapter
    Tensor inner;      // LayerSaved's, of the adapter
    const char* name;  // for the profiler
  };
  void linear(Ctx& ctx, const Projection& p, Recipe::Linear args) const;
  void linear_backward(Ctx& ctx, const Projection& p, Recipe::LinearBackward args) const;
  // The head's logits, in the dtype of the operands.
  void lm_head(Ctx& ctx, const Adapter& adapter, const Tensor& normed, const Tensor& logits) const;
  // kernels/rms_norm.h with the parameter's weight, its gradient, and the model's eps.
  void norm(Ctx& ctx, int param, RmsNormForward args) const;
  void norm_again(Ctx& ctx, int param, const Tensor& x, const Tensor& rstd, const Tensor& y) const;
  void norm_backward(Ctx& ctx, int param, RmsNormBackward args) const;

  MixtralConfig config_;
  ModelParams params_;
  State& state_;
  const Recipe& recipe_;
  const Dispatcher& dispatcher_;
  Activations activations_;
  Keeping keeping_;
  Router router_;
};

}  // namespace mixtune
