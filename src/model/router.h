// Router: which experts a layer chooses for every token, with what weights; and what its losses add to the gradient.
#pragma once

#include "config/router_scores.h"
#include "data/batch.h"
#include "model/dispatcher.h"
#include "model/router_losses.h"
#include "model/router_noise.h"
#include "precision/recipe.h"

namespace mixtune {

class Router {
 public:
  struct Options {
    RouterScores scores;
    Tensor bias;  // [L, E] fp32, for choosing alone; empty: none
    RouterNoise noise;
    bool sinkhorn = false;  // in training, choose what balances the micro-batch (kernels/moe/sinkhorn.h)
  };
  explicit Router(const Options& options)
      : scores_(options.scores), bias_(options.bias), noise_(options.noise), sinkhorn_(options.sinkhorn) {}

  // Writes logits [T, E], the routing and its stats [2, E] (kernels/moe/router.h) of x [T, H]. With forced,
  // routing.experts is given.
  struct Forward {
    Tensor x, weight, logits;
    Routing routing;
    Tensor stats;
    Tensor loss_stats;  // with a bias: of the choice without it, which the losses count; empty: not written
    const Batch& batch;
    int64_t layer;
    bool forced;
    std::optional<uint64_t> noise;  // the layer's key, by which RouterNoise is drawn; none: this is no training
    const Adapter& adapter;         // of the weight, perhaps empty
  };
  void forward(Ctx& ctx, const Forward& args) const;

  // Adds to dx [T, H] what comes from dweights [T, k], the gradient of the routing's weights, and from the losses;
  // writes or adds the weight's gradient. Adds the values of kZ and kSequence to the losses' sums.
  struct Backward {
    Tensor x, weight, logits;
    Routing routing;
    const Batch& batch;
    const RouterGradients& losses;
    int64_t layer;
    Tensor dweights;
    Tensor dx;
    WeightGradient dweight;
    std::optional<uint64_t> noise;  // that of forward
    const Adapter& adapter;
  };
  void backward(Ctx& ctx, const Backward& args) const;

  bool has_bias() const { return static_cast<bool>(bias_); }

 private:
  // What is added to logits to choose by, on the stack; empty: nothing is.
  Tensor offsets(Ctx& ctx, const Forward& args) const;
  // Chooses by the scores alone. Writes stats, and experts [T, k].
  struct Unbiased {
    Tensor logits, experts, stats;
    int64_t live;
  };
  void choose_unbiased(Ctx& ctx, const Unbiased& args) const;
  // x as the router sees it; what is jittered is pushed on the stack.
  struct Jittered {
    Tensor x;
    std::optional<uint64_t> noise;
    int64_t first_token;
  };
  bool jitters(const std::optional<uint64_t>& noise) const { return noise && noise_.jitter > 0; }
  Tensor jittered(Ctx& ctx, const Jittered& args) const;
  void logits_backward(Ctx& ctx, const Backward& args, const Tensor& dlogits) const;

  // Adds to dlogits the gradients of the losses that are of a rank's own tokens.
  void add_own_losses(Ctx& ctx, const Backward& args, const Tensor& dlogits) const;

  RouterScores scores_;
  Tensor bias_;
  RouterNoise noise_;
  bool sinkhorn_;
};

}  // namespace mixtune
