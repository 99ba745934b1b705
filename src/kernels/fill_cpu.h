// CPU twin of fill.h.
#pragma once

#include "base/random.h"
#include "kernels/fill.h"

namespace mixtune::cpu {

template <class S>
void fill_normal(const FillNormal& args) {
  S* x = args.tensor.as<S>();
#pragma omp parallel for
  for (int64_t i = 0; i < args.tensor.elements(); ++i) {
    const double value = args.mean + args.deviation * random_normal(args.key, args.first + i);
    if constexpr (std::is_same_v<S, BF16>)
      x[i] = to_bf16(static_cast<float>(value));
    else
      x[i] = static_cast<S>(value);
  }
}

}  // namespace mixtune::cpu
