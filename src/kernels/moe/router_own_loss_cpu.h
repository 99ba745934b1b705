// CPU twins of router_own_loss.h.
#pragma once

#include "kernels/moe/router_cpu.h"
#include "kernels/moe/router_own_loss.h"

namespace mixtune::cpu {

template <class S>
void router_z_loss(const RouterZLoss& args, const Tensor& squares) {
  const int64_t experts = args.logits.shape[1];
#pragma omp parallel for
  for (int64_t t = 0; t < args.live; ++t) {
    const S* logits = args.logits.as<S>() + t * experts;
    const S highest = *std::max_element(logits, logits + experts);
    S sum = 0;
    for (int64_t e = 0; e < experts; ++e) sum += std::exp(logits[e] - highest);
    const S lse = highest + std::log(sum);
    squares.as<double>()[t] = static_cast<double>(lse) * static_cast<double>(lse);
    const S factor = static_cast<S>(2 * args.scale) * lse;
    for (int64_t e = 0; e < experts; ++e) args.dlogits.as<S>()[t * experts + e] += factor * std::exp(logits[e] - lse);
  }
}

template <class S>
void router_sequence_loss(Ctx& ctx, const RouterSequenceLoss& args, const RouterSequenceScratch& scratch) {
  const int64_t experts = args.logits.shape[1], k = args.experts.shape[1];
  const int32_t* offsets = args.doc_offsets.as<int32_t>();
  const Stack::Frame frame(ctx.stack);
  const Tensor probabilities = ctx.stack.push("router probabilities", args.logits.shape, args.logits.dtype);
#pragma omp parallel for
  for (int64_t d = 0; d < scratch.prob_grad.rows(); ++d) {
    double* g = scratch.prob_grad.as<double>() + d * experts;
    const int64_t begin = offsets[d], end = offsets[d + 1];
    const auto tokens = static_cast<double>(end - begin);
    std::fill_n(g, experts, 0.0);
    for (int64_t pair = begin * k; pair < end * k; ++pair) g[args.experts.as<int32_t>()[pair]] += 1;
    for (int64_t e = 0; e < experts; ++e)
      g[e] *= static_cast<double>(experts) / (static_cast<double>(k) * tokens * tokens);
    for (int64_t t = begin; t < end; ++t) {
      S* p = probabilities.as<S>() + t * experts;
      const S* logits = args.logits.as<S>() + t * experts;
      cpu::probabilities(args.scoring, logits, experts, p);
      double loss = 0;
      for (int64_t e = 0; e < experts; ++e) loss += g[e] * static_cast<double>(p[e]);
      scratch.losses.as<double>()[t] = loss;
      const auto gradient = [&](int64_t e) {
        return static_cast<S>(args.scale * g[e]);
      };
      add_through_probabilities(args.scoring, logits, p, experts, gradient, args.dlogits.as<S>() + t * experts);
    }
  }
}

}  // namespace mixtune::cpu
