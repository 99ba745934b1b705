// Tokens that the router routes, with what goes into their gradient: for tests.
#pragma once

#include "kernels/moe/router.h"
#include "kernels/testing.h"

namespace mixtune {

constexpr int64_t kRouted = 30, kLive = 25;

template <class S>
struct RoutedTokens {
  int64_t experts, k;
  RouterScores scores = {};
  TestCtx ctx = {};
  Buffer<S> logits = Buffer<S>::random({kRouted, experts}, "logits", 2), weights{{kRouted, k}, S(9)};
  Buffer<S> dweights = Buffer<S>::random({kRouted, k}, "dweights"), dlogits{{kRouted, experts}, S(9)};
  Buffer<int32_t> chosen{{kRouted, k}, 9};
  Buffer<double> stats{{2, experts}}, prob_grad = Buffer<double>::random({experts}, "prob_grad");
  Buffer<float> bias = Buffer<float>::random({experts}, "bias", 0.3);  // where the scores have one

  void forward(bool forced = false) {
    router_forward(ctx, {.logits = logits,
                         .live = kLive,
                         .experts = chosen,
                         .weights = weights,
                         .stats = stats,
                         .forced = forced,
                         .scores = scores,
                         .bias = scores.expert_bias ? bias.tensor() : Tensor{}});
  }
  void backward(bool with_aux) {
    router_backward(ctx, {.logits = logits,
                          .experts = chosen,
                          .weights = weights,
                          .dweights = dweights,
                          .prob_grad = with_aux ? prob_grad.tensor() : Tensor{},
                          .live = kLive,
                          .dlogits = dlogits,
                          .scores = scores});
  }
  // The function whose gradient is tested: of the live weights, and the statistics of probabilities.
  double loss(bool with_aux) {
    forward();
    double sum = 0;
    for (int64_t i = 0; i < kLive * k; ++i) sum += weights[i] * dweights[i];
    for (int64_t e = 0; with_aux && e < experts; ++e) sum += prob_grad[e] * stats[experts + e];
    return sum;
  }
};

}  // namespace mixtune
