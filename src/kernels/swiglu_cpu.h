// CPU twins of swiglu.h.
#pragma once

#include "kernels/cpu_math.h"
#include "kernels/swiglu.h"

namespace mixtune::cpu {

template <class S>
// NOLINTNEXTLINE(bugprone-easily-swappable-parameters): the op has checked their shapes.
void swiglu_forward(const Tensor& gate_up, const Tensor& row_weights, const Tensor& act) {
  const int64_t rows = act.rows(), f = act.shape[1];
#pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const S *gate = gate_up.as<S>() + r * 2 * f, *up = gate + f;
    const S weight = row_weights.as<S>()[r];
    S* out = act.as<S>() + r * f;
#pragma omp simd
    for (int64_t i = 0; i < f; ++i) {
      const S sigmoid = 1 / (1 + cpu::exp(-gate[i]));
      out[i] = gate[i] * sigmoid * up[i] * weight;  // as backward has it again, to the last bit
    }
  }
}

template <class S>
void swiglu_backward(const SwigluBackward& args) {
  const int64_t rows = args.dact.rows(), f = args.dact.shape[1];
#pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const S *gate = args.gate_up.as<S>() + r * 2 * f, *up = gate + f;
    S *dgate = args.dgate_up.as<S>() + r * 2 * f, *dup = dgate + f;
    const S* dact = args.dact.as<S>() + r * f;
    S* act = args.act ? args.act.as<S>() + r * f : nullptr;
    const S weight = args.row_weights.as<S>()[r];
    S dweight = 0;
#pragma omp simd reduction(+ : dweight)
    for (int64_t i = 0; i < f; ++i) {
      const S g = gate[i], u = up[i], d = dact[i];
      const S sigmoid = 1 / (1 + cpu::exp(-g));
      const S silu = g * sigmoid;
      dweight += d * silu * u;
      dgate[i] = d * weight * u * sigmoid * (1 + g * (1 - sigmoid));
      dup[i] = d * weight * silu;
      if (act) act[i] = silu * u * weight;
    }
    args.drow_weights.as<S>()[r] = dweight;
  }
}

}  // namespace mixtune::cpu
