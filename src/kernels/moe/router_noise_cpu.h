// CPU twins of router_noise.h.
#pragma once

#include "kernels/moe/router_noise.h"

namespace mixtune::cpu {

template <class S>
void router_jitter(const RouterJitter& args) {
  const int64_t n = args.x.elements();
  const uint64_t key = mix_key(args.key), first = static_cast<uint64_t>(args.first_token * args.x.shape[1]);
  const S* x = args.x.as<S>();
  S* y = args.y.as<S>();
#pragma omp parallel for
  for (int64_t i = 0; i < n; ++i) {
    const S factor = jitter_factor(key, first + static_cast<uint64_t>(i), static_cast<float>(args.eps));
    y[i] = (args.accumulate ? y[i] : S(0)) + x[i] * factor;
  }
}

inline void draw_experts(const DrawExperts& args) {
  const int64_t k = args.experts.shape[1];
  const uint64_t key = mix_key(args.key);
  int32_t* experts = args.experts.as<int32_t>();
  for (int64_t i = 0; i < args.experts.elements(); ++i)
    experts[i] = i / k < args.live ? drawn_expert(key, args.first_token + i / k, i % k, args.all_experts) : -1;
}

}  // namespace mixtune::cpu
