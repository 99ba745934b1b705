// CPU twin of router_loss.h.
#pragma once

#include "kernels/moe/router_loss.h"

namespace mixtune::cpu {

inline void router_loss(const RouterLoss& args) {
  const int64_t layers = args.stats.shape[0], experts = args.stats.shape[2];
  const double* stats = args.stats.as<double>();
  const double pooled = static_cast<double>(layers * args.tokens);
  double loss = 0;
  for (int64_t e = 0; e < experts; ++e) {
    double count = 0, probability = 0;
    for (int64_t l = 0; l < layers; ++l) {
      count += stats[(2 * l) * experts + e];
      probability += stats[(2 * l + 1) * experts + e];
    }
    const double f = count / pooled;
    loss += static_cast<double>(experts) * f * probability / pooled;
    for (int64_t l = 0; l < layers; ++l)
      args.prob_grad.as<double>()[l * experts + e] = args.scale * static_cast<double>(experts) * f / pooled;
  }
  *args.loss.as<double>() += loss;
}

}  // namespace mixtune::cpu
