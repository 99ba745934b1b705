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

// The k largest by k passes; a strict comparison leaves ties to the lower index.
template <class S>
void top_k(const S* numbers, int64_t experts, int64_t k, int32_t* chosen) {
  for (int64_t slot = 0; slot < k; ++slot) {
    int32_t best = -1;
    for (int32_t e = 0; e < experts; ++e)
      if ((best < 0 || numbers[e] > numbers[best]) && std::find(chosen, chosen + slot, e) == chosen + slot) best = e;
    chosen[slot] = best;
  }
}

template <class S>
S sigmoid(S x) {
  return 1 / (1 + std::exp(-x));
}

// ranks = what experts are chosen by, E long.
template <class S>
void biased_scores(const S* logits, const float* bias, int64_t experts, S* ranks) {
  for (int64_t e = 0; e < experts; ++e) ranks[e] = sigmoid(logits[e]) + static_cast<S>(bias[e]);
}

template <class S>
void offset_logits(const S* logits, const S* offsets, int64_t experts, S* ranks) {
  for (int64_t e = 0; e < experts; ++e) ranks[e] = logits[e] + offsets[e];
}

// weights = softmax over the chosen logits.
template <class S>
void renormalise(const S* logits, const int32_t* chosen, int64_t k, S* weights) {
  S highest = logits[chosen[0]], sum = 0;
  for (int64_t slot = 1; slot < k; ++slot) highest = std::max(highest, logits[chosen[slot]]);
  for (int64_t slot = 0; slot < k; ++slot) sum += weights[slot] = std::exp(logits[chosen[slot]] - highest);
  for (int64_t slot = 0; slot < k; ++slot) weights[slot] /= sum;
}

// p = the probabilities of the experts, E long.
template <class S>
void probabilities(Scoring scoring, const S* logits, int64_t experts, S* p) {
  if (scoring != Scoring::kSigmoid) return softmax(logits, experts, p);
  S sum = static_cast<S>(kSigmoidSumEpsilon);
  for (int64_t e = 0; e < experts; ++e) sum += p[e] = sigmoid(logits[e]);
  for (int64_t e = 0; e < experts; ++e) p[e] /= sum;
}

// A sigmoid's derivative by the sigmoid; 1 of a softmax. Both kinds of probabilities and of weights have the gradient
// p (g - sum p g) times this.
template <class S>
S slope(Scoring scoring, S logit) {
  return scoring == Scoring::kSigmoid ? sigmoid(-logit) : S(1);
}

// dlogits += the gradient through the probabilities p; g(e) is that with respect to p[e].
template <class S, class Gradient>
void add_through_probabilities(Scoring scoring, const S* logits, const S* p, int64_t experts, Gradient&& g,
                               S* dlogits) {
  S mean = 0;
  for (int64_t e = 0; e < experts; ++e) mean += p[e] * g(e);
  for (int64_t e = 0; e < experts; ++e) dlogits[e] += p[e] * (g(e) - mean) * slope(scoring, logits[e]);
}

// The weights of the chosen experts, of logits and their probabilities p.
template <class S>
void weigh(const RouterScores& scores, const S* logits, const S* p, const int32_t* chosen, int64_t k, S* weights) {
  switch (scores.scoring) {
    case Scoring::kSoftmax:
      renormalise(logits, chosen, k, weights);
      break;
    case Scoring::kPreSoftmax:
      for (int64_t slot = 0; slot < k; ++slot) weights[slot] = p[chosen[slot]];
      break;
    case Scoring::kSigmoid:
      S sum = static_cast<S>(kSigmoidSumEpsilon);
      for (int64_t slot = 0; slot < k; ++slot) sum += weights[slot] = sigmoid(logits[chosen[slot]]);
      for (int64_t slot = 0; k > 1 && slot < k; ++slot) weights[slot] /= sum;
  }
  for (int64_t slot = 0; slot < k; ++slot) weights[slot] *= static_cast<S>(scores.scaling);
}

// A token's k experts.
template <class S>
struct Weighed {
  const S* logits;
  const int32_t* chosen;
  const S *weights, *dweights;
};

// dlogits += the gradient through the weights, which are not kPreSoftmax's.
template <class S>
void add_through_weights(const RouterScores& scores, int64_t k, const Weighed<S>& token, S* dlogits) {
  const auto& [logits, chosen, w, dw] = token;
  S mean = 0;  // none of a sigmoid by itself
  for (int64_t slot = 0; slot < k && (scores.scoring == Scoring::kSoftmax || k > 1); ++slot) mean += w[slot] * dw[slot];
  mean /= static_cast<S>(scores.scaling);
  for (int64_t slot = 0; slot < k; ++slot)
    dlogits[chosen[slot]] += w[slot] * (dw[slot] - mean) * slope(scores.scoring, logits[chosen[slot]]);
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
    S* p = probabilities.as<S>() + t * experts;
    if (!args.forced && args.bias) biased_scores(logits, args.bias.as<float>(), experts, p);
    if (!args.forced && args.offsets) offset_logits(logits, args.offsets.as<S>(), experts, p);
    if (!args.forced) top_k(args.bias || args.offsets ? p : logits, experts, k, chosen);
    cpu::probabilities(args.scores.scoring, logits, experts, p);
    weigh(args.scores, logits, p, chosen, k, weights);
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
  const double* of_loss = args.prob_grad ? args.prob_grad.as<double>() : nullptr;
  const Scoring scoring = args.scores.scoring;
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    S* dlogits = args.dlogits.as<S>() + t * experts;
    std::fill_n(dlogits, experts, S(0));
    if (t >= args.live) continue;
    const S* logits = args.logits.as<S>() + t * experts;
    const int32_t* chosen = args.experts.as<int32_t>() + t * k;
    const S* dw = args.dweights.as<S>() + t * k;
    const bool are_weights = scoring == Scoring::kPreSoftmax;
    if (of_loss != nullptr || are_weights) {
      S* p = probabilities.as<S>() + t * experts;
      cpu::probabilities(scoring, logits, experts, p);
      const auto gradient = [&](int64_t e) {
        S g = of_loss != nullptr ? static_cast<S>(of_loss[e]) : S(0);
        for (int64_t slot = 0; are_weights && slot < k; ++slot)
          if (chosen[slot] == e) g += static_cast<S>(args.scores.scaling) * dw[slot];
        return g;
      };
      add_through_probabilities(scoring, logits, p, experts, gradient, dlogits);
    }
    const Weighed<S> weighed = {
        .logits = logits, .chosen = chosen, .weights = args.weights.as<S>() + t * k, .dweights = dw};
    if (!are_weights) add_through_weights(args.scores, k, weighed, dlogits);
  }
}

}  // namespace mixtune::cpu
