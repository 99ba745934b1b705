// The arithmetic of an optimizer step over lists of tensors. Its decisions (norm, scale) stay on the device.
#pragma once

#include <span>

#include "tensor/ctx.h"

namespace mixtune {

// sum [1] fp64 = the sum of the squares of all elements of all tensors, in fp64 (fp32 within a few hundred elements on
// a GPU), in an order that does not depend on threads.
void sum_of_squares(Ctx& ctx, std::span<const Tensor> tensors, const Tensor& sum);

// scale [1] fp64 = the factor by which clipping multiplies gradients: min(1, max_norm / (sqrt(squares) + 1e-6)), as in
// torch's clip_grad_norm_; 1 with max_norm 0. NaN where squares [1] or any of guards [n] (fp64) is not finite: adamw
// then changes nothing.
struct ClipScale {
  Tensor squares, guards, scale;
  double max_norm = 0;
};
void clip_scale(Ctx& ctx, const ClipScale& args);

// AdamW (Loshchilov, Hutter 2019), as PyTorch orders it, with g = grad * grad_scale, in fp32 (fp64 in the oracle):
//   w *= 1 - lr * decay;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
//   w -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
// step counts from 1. grad_scale [1] fp64; where it is NaN nothing changes.
struct AdamWStep {
  double learning_rate, beta1, beta2, epsilon;
  int64_t step;
  Tensor grad_scale;
};

// One Hugging Face tensor, or a range of one. weight fp32 or bf16; master fp32 or empty (then with a bf16 weight);
// grad, m, v fp32 or bf16 (m and v of one dtype); all fp64 in the oracle. With a master, w is the master and weight its
// nearest bf16. A bf16 weight without a master, and bf16 moments, are rounded stochastically by bits that hash (key,
// first + element), so that the result does not depend on how a tensor is cut.
//
// The three roundings of an element share one word of 32 bits (base/random.h, rounding_bits): weight takes bits 16..31,
// m 8..23, v 0..15. Each is unbiased by itself, and means over steps and elements need no more. The byte that mostly
// decides one of them is at most the lower byte of another, so they hardly move together.
struct AdamWTensor {
  Tensor weight, master, grad, m, v;
  double weight_decay = 0;
  uint64_t key = 0;   // of (seed, step, Hugging Face name)
  int64_t first = 0;  // logical index of element 0 in the Hugging Face tensor
};
void adamw(Ctx& ctx, std::span<const AdamWTensor> tensors, const AdamWStep& args);

}  // namespace mixtune
