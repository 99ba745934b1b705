// CPU twin of router_health.h.
#pragma once

#include <numeric>

#include "kernels/moe/router_cpu.h"
#include "kernels/moe/router_health.h"

namespace mixtune::cpu {

// Of the softmax over a token's logits, in nats.
template <class S>
double entropy(const S* logits, int64_t experts) {
  const S highest = *std::max_element(logits, logits + experts);
  double sum = 0, mean = 0;  // of exp(x - highest); of x - highest, by these
  for (int64_t e = 0; e < experts; ++e) {
    const auto x = static_cast<double>(logits[e] - highest);
    sum += std::exp(x);
    mean += x * std::exp(x);
  }
  return std::log(sum) - mean / sum;
}

template <class S>
void router_health(const RouterHealth& args, const Tensor& parts) {
  const int64_t experts = args.logits.shape[1];
  auto* entropies = parts.row(0).as<double>();
  auto* squares = parts.row(1).as<double>();
#pragma omp parallel for
  for (int64_t part = 0; part < kHealthParts; ++part) {
    entropies[part] = squares[part] = 0;
    const int64_t end = args.live * (part + 1) / kHealthParts;
    for (int64_t t = args.live * part / kHealthParts; t < end; ++t) {
      const S* logits = args.logits.as<S>() + t * experts;
      entropies[part] += entropy(logits, experts);
      for (int64_t e = 0; e < experts; ++e)
        squares[part] += static_cast<double>(logits[e]) * static_cast<double>(logits[e]);
    }
  }
  auto* tally = args.tally.as<double>();
  for (int64_t e = 0; e < experts; ++e) tally[e] += args.stats.as<double>()[e];
  tally[experts + kTallyTokens] += static_cast<double>(args.live);
  tally[experts + kTallyEntropy] += std::accumulate(entropies, entropies + kHealthParts, 0.0);
  tally[experts + kTallySquares] += std::accumulate(squares, squares + kHealthParts, 0.0);
}

}  // namespace mixtune::cpu
