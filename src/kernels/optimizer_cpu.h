// CPU twins of optimizer.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/optimizer.h"

namespace mixtune::cpu {

constexpr int64_t kOptimizerBlock = 1 << 15;  // elements a task

template <class S>
double sum_of_squares(Ctx& ctx, const Tensor& x) {
  const int64_t n = x.elements(), blocks = (n + kOptimizerBlock - 1) / kOptimizerBlock;
  const Stack::Frame frame(ctx.stack);
  double* partial = ctx.stack.push("gradient norm sums", {blocks}, DType::kF64).as<double>();
#pragma omp parallel for
  for (int64_t b = 0; b < blocks; ++b) {
    double sum = 0;
    const S* data = x.as<S>();
#pragma omp simd reduction(+ : sum)
    for (int64_t i = b * kOptimizerBlock; i < std::min(n, (b + 1) * kOptimizerBlock); ++i)
      sum += static_cast<double>(data[i]) * static_cast<double>(data[i]);
    partial[b] = sum;
  }
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += partial[b];
  return total;
}

template <class S>
void adamw(const AdamWArgs& args) {
  const int64_t n = args.weight.elements();
  const auto scale = static_cast<S>(args.grad_scale),
             decay = static_cast<S>(1 - args.learning_rate * args.weight_decay);
  const auto beta2 = static_cast<S>(args.beta2), epsilon = static_cast<S>(args.epsilon);
  const auto blend1 = static_cast<S>(1 - args.beta1), blend2 = static_cast<S>(1 - args.beta2);
  const auto step_size = static_cast<S>(args.learning_rate / (1 - std::pow(args.beta1, args.step)));
  const auto correction2 = static_cast<S>(std::sqrt(1 - std::pow(args.beta2, args.step)));
  S *weight = args.weight.as<S>(), *m = args.m.as<S>(), *v = args.v.as<S>();
  const S* grad = args.grad.as<S>();
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const S g = grad[i] * scale;
    m[i] += blend1 * (g - m[i]);
    v[i] = v[i] * beta2 + blend2 * g * g;
    weight[i] = weight[i] * decay - step_size * m[i] / (std::sqrt(v[i]) / correction2 + epsilon);
  }
}

}  // namespace mixtune::cpu
