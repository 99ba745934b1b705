// The arithmetic of an optimizer step on one tensor.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// Sum of the squares of x's elements, in fp64, in an order that does not depend on the number of threads.
double sum_of_squares(Ctx& ctx, const Tensor& x);

// AdamW (Loshchilov, Hutter 2019), as PyTorch orders it, with g = grad * grad_scale:
//   w *= 1 - lr * decay;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
//   w -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + epsilon)
// weight, grad, m, v: one shape. step counts from 1.
struct AdamWArgs {
  Tensor weight, grad, m, v;
  double grad_scale, learning_rate, beta1, beta2, epsilon, weight_decay;
  int64_t step;
};
void adamw(Ctx& ctx, const AdamWArgs& args);

}  // namespace mixtune
