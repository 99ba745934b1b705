// CPU twins of rope.h.
#pragma once

#include <cmath>

#include "kernels/rope.h"

namespace mixtune::cpu {

template <class S>
void rope_table(Ctx& ctx, const Tensor& positions, double theta, const Tensor& table) {
  const int64_t rows = table.rows(), d = table.shape[1], half = d / 2;
  const Stack::Frame frame(ctx.stack);
  // Frequencies are rounded as transformers does: each step in S.
  S* frequency = ctx.stack.push("rope frequencies", {half}, table.dtype).as<S>();
  for (int64_t i = 0; i < half; ++i)
    frequency[i] = S(1) / std::pow(static_cast<S>(theta), static_cast<S>(2 * i) / static_cast<S>(d));
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    S* row = table.as<S>() + t * d;
    for (int64_t i = 0; i < half; ++i) {
      const S angle = static_cast<S>(positions.as<int32_t>()[t]) * frequency[i];
      row[i] = std::cos(angle);
      row[half + i] = std::sin(angle);
    }
  }
}

template <class S>
void rope(const RopeArgs& args) {
  const int64_t rows = args.qkv.rows(), width = args.qkv.shape[1], d = args.table.shape[1], half = d / 2;
  const S sign = args.inverse ? S(-1) : S(1);
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    const S* cosine = args.table.as<S>() + t * d;
    const S* sine = cosine + half;
    for (int64_t head = 0; head < args.q_heads + args.kv_heads; ++head) {
      S* x = args.qkv.as<S>() + t * width + head * d;
      S* y = x + half;
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        const S a = x[i], b = y[i], c = cosine[i], s = sign * sine[i];
        x[i] = a * c - b * s;
        y[i] = b * c + a * s;
      }
    }
  }
}

}  // namespace mixtune::cpu
