// Router: which experts a layer chooses for every token, with what weights; and what its losses add to the gradient.
#pragma once

#include "config/router_scores.h"
#include "data/batch.h"
#include "model/dispatcher.h"
#include "model/router_losses.h"
#include "precision/recipe.h"

namespace mixtune {

class Router {
 public:
  explicit Router(const RouterScores& scores) : scores_(scores) {}

  // Writes logits [T, E], the routing and stats [2, E] (kernels/moe/router.h) of x [T, H]. With forced, routing.experts
  // is given.
  struct Forward {
    Tensor x, weight, logits;
    Routing routing;
    Tensor stats;
    int64_t live;
    bool forced;
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
  };
  void backward(Ctx& ctx, const Backward& args) const;

 private:
  // Adds to dlogits the gradients of the losses that are of a rank's own tokens.
  void add_own_losses(Ctx& ctx, const Backward& args, const Tensor& dlogits) const;

  RouterScores scores_;
};

}  // namespace mixtune
