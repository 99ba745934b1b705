// AdamW's arithmetic on one element, as the CPU twin and the CUDA kernel share it. C is fp32, or fp64 in the oracle.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/optimizer.h"

namespace mixtune {

template <class C>
struct AdamWScalars {
  C beta2, blend1, blend2, epsilon, step_size, root_scale;

  explicit AdamWScalars(const AdamWStep& args)
      : beta2(static_cast<C>(args.beta2)),
        blend1(static_cast<C>(1 - args.beta1)),
        blend2(static_cast<C>(1 - args.beta2)),
        epsilon(static_cast<C>(args.epsilon)),
        step_size(static_cast<C>(args.learning_rate / (1 - std::pow(args.beta1, args.step)))),
        root_scale(static_cast<C>(1 / std::sqrt(1 - std::pow(args.beta2, args.step)))) {}

  constexpr void update_moments(C g, C& m, C& v) const {
    m += blend1 * (g - m);
    v = v * beta2 + blend2 * g * g;
  }
  constexpr C denominator(C root_v) const { return root_v * root_scale + epsilon; }
};

// Adds both changes before it takes them from w: in fp32, 1 - lr * decay would be 1 at fine-tuning's learning rates.
template <class C>
constexpr C updated_weight(C w, C decay_rate, C change) {
  return w - (w * decay_rate + change);
}

// The product lr * decay for one tensor.
template <class C>
C decay_rate(const AdamWStep& args, const AdamWTensor& tensor) {
  return static_cast<C>(args.learning_rate * tensor.weight_decay);
}

// Where each rounding's 16 bits begin in an element's word (optimizer.h).
constexpr int kWeightBits = 16, kFirstMomentBits = 8, kSecondMomentBits = 0;

}  // namespace mixtune
