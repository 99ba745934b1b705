// CPU twins of router.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/moe/router.h"

namespace mixtune::cpu {

// p = softmax(logits), E long.
template <class S>
void softmax(const S* logits, int64_t experts, S* p) {
  const S highest = *std::max_element(logits, logits + experts);
  S sum = 0;
  for (int64_t e = 0; e < experts; ++e) sum += p[e] = std::exp(logits[e] - highest);
  for (int64_t e = 0; e < experts; ++e) p[e] /= sum;
}

// The k largest logits by k passes; a strict comparison leaves ties to the lower index.
template <class S>
void top_k(const S* logits, int64_t experts, int64_t k, int32_t* chosen) {
  for (int64_t slot = 0; slot < k; ++slot) {
    int32_t best = -1;
    for (int32_t e = 0; e < experts; ++e)
      if ((best < 0 || logits[e] > logits[best]) && std::find(chosen, chosen + slot, e) == chosen + slot) best = e;
    chosen[slot] = best;
  }
}

// weights = softmax over the chosen logits.
template <class S>
void renormalise(const S* logits, const int32_t* chosen, int64_t k, S* weights) {
  S highest = logits[chosen[0]], sum = 0;
  for (int64_t slot = 1; slot < k; ++slot) highest = std::max(highest, logits[chosen[slot]]);
  for (int64_t slot = 0; slot < k; ++slot) sum += weights[slot] = std::exp(logits[chosen[slot]] - highest);
  for (int64_t slot = 0; slot < k; ++slot) weights[slot] /= sum;
}

template <class S>
void router_forward(Ctx& ctx, const RouterForward& args) {
  const int64_t rows = args.logits.rows(), experts = args.logits.shape[1], k = args.experts.shape[1];
  const Stack::Frame frame(ctx.stack);
  const Tensor probabilities = ctx.stack.push("router probabilities", args.logits.shape, args.logits.dtype);
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    int32_t* chosen = args.experts.as<int32_t>() + t * k;
    S* weights = args.weights.as<S>() + t * k;
    if (t >= args.live) {
      if (!args.forced) std::fill_n(chosen, k, -1);
      std::fill_n(weights, k, S(0));
      continue;
    }
    const S* logits = args.logits.as<S>() + t * experts;
    softmax(logits, experts, probabilities.as<S>() + t * experts);
    if (!args.forced) top_k(logits, experts, k, chosen);
    renormalise(logits, chosen, k, weights);
  }
  double* counts = args.stats.as<double>();
  std::fill_n(counts, 2 * experts, 0.0);
  for (int64_t t = 0; t < args.live; ++t) {
    for (int64_t slot = 0; slot < k; ++slot) counts[args.experts.as<int32_t>()[t * k + slot]] += 1;
    for (int64_t e = 0; e < experts; ++e) counts[experts + e] += probabilities.as<S>()[t * experts + e];
  }
}

template <class S>
void router_backward(Ctx& ctx, const RouterBackward& args) {
  const int64_t rows = args.logits.rows(), experts = args.logits.shape[1], k = args.experts.shape[1];
  const Stack::Frame frame(ctx.stack);
  const Tensor probabilities = ctx.stack.push("router probabilities", args.logits.shape, args.logits.dtype);
  const double* g = args.prob_grad ? args.prob_grad.as<double>() : nullptr;
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    S* dlogits = args.dlogits.as<S>() + t * experts;
    std::fill_n(dlogits, experts, S(0));
    if (t >= args.live) continue;
    if (g != nullptr) {
      S* p = probabilities.as<S>() + t * experts;
      softmax(args.logits.as<S>() + t * experts, experts, p);
      S mean = 0;
      for (int64_t e = 0; e < experts; ++e) mean += p[e] * static_cast<S>(g[e]);
      for (int64_t e = 0; e < experts; ++e) dlogits[e] = p[e] * (static_cast<S>(g[e]) - mean);
    }
    const int32_t* chosen = args.experts.as<int32_t>() + t * k;
    const S* w = args.weights.as<S>() + t * k;
    const S* dw = args.dweights.as<S>() + t * k;
    S mean = 0;
    for (int64_t slot = 0; slot < k; ++slot) mean += w[slot] * dw[slot];
    for (int64_t slot = 0; slot < k; ++slot) dlogits[chosen[slot]] += w[slot] * (dw[slot] - mean);
  }
}

}  // namespace mixtune::cpu
