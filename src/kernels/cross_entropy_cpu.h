// CPU twin of cross_entropy.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/cpu_math.h"
#include "kernels/cross_entropy.h"

namespace mixtune::cpu {

template <class S>
void cross_entropy(const CrossEntropy& args) {
  const int64_t rows = args.logits.rows(), vocab = args.logits.shape[1];
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    const int32_t target = args.targets.as<int32_t>()[t];
    const S* logits = args.logits.as<S>() + t * vocab;
    const S highest = max_of(logits, vocab);
    const S target_logit = logits[target];
    const double weight = args.weights ? args.weights.as<float>()[t] : 1;
    const auto scale = static_cast<S>(args.scale * weight);
    S sum = 0;
    if (args.dlogits) {
      S* dlogits = args.dlogits.as<S>() + t * vocab;
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < vocab; ++v) sum += dlogits[v] = cpu::exp(logits[v] - highest);
      const S factor = scale / sum;
      for (int64_t v = 0; v < vocab; ++v) dlogits[v] *= factor;
      dlogits[target] -= scale;
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t v = 0; v < vocab; ++v) sum += cpu::exp(logits[v] - highest);
    }
    args.losses.as<double>()[t] =
        (std::log(static_cast<double>(sum)) + static_cast<double>(highest) - static_cast<double>(target_logit)) *
        weight;
  }
}

}  // namespace mixtune::cpu
