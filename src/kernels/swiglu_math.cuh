// SwiGLU's arithmetic on one element, as all its kernels share it. S is the dtype of the results.
#pragma once

#include "kernels/cuda_math.cuh"
#include "kernels/ptx.cuh"

namespace mixtune::cuda {

// Exact to the last places in fp32. A result that is rounded to bf16 may come from the fast instructions.
template <class S>
__device__ float sigmoid(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  if constexpr (std::is_same_v<S, float>)
    return 1 / (1 + expf(-x));
  else
    return ptx::reciprocal_fast(1 + ptx::exp2_fast(-kLog2E * x));
}

template <class S>
__device__ float swiglu(float gate, float up, float weight) {
  return gate * sigmoid<S>(gate) * up * weight;
}

struct SwigluGradient {
  float dgate, dup, act, dweight;  // act: swiglu again
};

template <class S>
__device__ SwigluGradient swiglu_gradient(float gate, float up, float weight, float dact) {
  const float s = sigmoid<S>(gate), silu = gate * s, slope = s * (1 + gate * (1 - s));
  return {.dgate = dact * weight * up * slope,
          .dup = dact * weight * silu,
          .act = silu * up * weight,
          .dweight = dact * silu * up};
}

}  // namespace mixtune::cuda
