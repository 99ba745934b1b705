// CPU twin of router_loss.h.
#pragma once

#include "kernels/moe/router_loss.h"

namespace mixtune::cpu {

inline double huggingface_loss(const RouterLoss& args) {
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
  return loss;
}

// kSwitch and kGlobal.
inline double layer_losses(const RouterLoss& args) {
  const int64_t layers = args.stats.shape[0], experts = args.stats.shape[2];
  const bool global = args.type == RouterLossType::kGlobal;
  const auto tokens = static_cast<double>(args.tokens);
  const double counted = global ? static_cast<double>(args.counted_tokens) : tokens;
  const double factor = static_cast<double>(experts) / static_cast<double>(args.experts_per_token);
  double loss = 0;
  for (int64_t l = 0; l < layers; ++l)
    for (int64_t e = 0; e < experts; ++e) {
      const double* n = args.stats.as<double>() + 2 * l * experts + e;
      const double count = global ? args.counts.as<double>()[l * experts + e] += *n : *n;
      const double gradient = factor * count / counted / tokens;
      double& to = args.prob_grad.as<double>()[l * experts + e];
      to = (args.accumulate ? to : 0) + args.scale * gradient;
      loss += gradient * n[experts];
    }
  return loss;
}

inline void router_loss(const RouterLoss& args) {
  *args.loss.as<double>() += args.type == RouterLossType::kHuggingface ? huggingface_loss(args) : layer_losses(args);
}

}  // namespace mixtune::cpu
