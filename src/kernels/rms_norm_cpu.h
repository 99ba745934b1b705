// CPU twins of rms_norm.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/rms_norm.h"

namespace mixtune::cpu {

template <class S>
void rms_norm_forward(const RmsNormForward& args) {
  const int64_t rows = args.x.rows(), h = args.x.shape[1];
  const S* weight = args.weight.as<S>();
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    const S* r = args.x.as<S>() + t * h;
    if (args.delta) {
      const S* x = r;
      const S* delta = args.delta.as<S>() + t * h;
      S* sum = args.r.as<S>() + t * h;
      for (int64_t i = 0; i < h; ++i) sum[i] = x[i] + delta[i];
      r = sum;
    }
    S squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < h; ++i) squares += r[i] * r[i];
    const S rstd = 1 / std::sqrt(squares / static_cast<S>(h) + static_cast<S>(args.eps));
    args.rstd.as<S>()[t] = rstd;
    S* y = args.y.as<S>() + t * h;
    for (int64_t i = 0; i < h; ++i) y[i] = weight[i] * (r[i] * rstd);
  }
}

template <class S>
// NOLINTNEXTLINE(bugprone-easily-swappable-parameters): the op has checked their shapes.
void rms_norm_recompute(const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y) {
  const int64_t rows = r.rows(), h = r.shape[1];
  const S* w = weight.as<S>();
#pragma omp parallel for
  for (int64_t t = 0; t < rows; ++t) {
    const S scale = rstd.as<S>()[t];
    const S* in = r.as<S>() + t * h;
    S* out = y.as<S>() + t * h;
    for (int64_t i = 0; i < h; ++i) out[i] = w[i] * (in[i] * scale);
  }
}

// The weight gradient is summed in blocks of this many rows, then over blocks in order: the same on any thread count.
constexpr int64_t kNormBlock = 128;

template <class S>
void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args) {
  const int64_t rows = args.r.rows(), h = args.r.shape[1];
  const int64_t blocks = (rows + kNormBlock - 1) / kNormBlock;
  const Stack::Frame frame(ctx.stack);
  const Tensor partial = ctx.stack.push("rms_norm partial sums", {blocks, h}, DTypeOf<S>::value);
  const S* weight = args.weight.as<S>();
#pragma omp parallel for
  for (int64_t b = 0; b < blocks; ++b) {
    S* dw = partial.as<S>() + b * h;
    std::fill_n(dw, h, S(0));
    for (int64_t t = b * kNormBlock; t < std::min(rows, (b + 1) * kNormBlock); ++t) {
      const S* r = args.r.as<S>() + t * h;
      const S* dy = args.dy.as<S>() + t * h;
      S* dr = args.dr.as<S>() + t * h;
      const S rstd = args.rstd.as<S>()[t];
      S dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < h; ++i) dot += dy[i] * weight[i] * r[i];
      const S mean = dot * rstd / static_cast<S>(h);
      for (int64_t i = 0; i < h; ++i) {
        const S n = r[i] * rstd;
        dr[i] += rstd * (dy[i] * weight[i] - n * mean);
        dw[i] += dy[i] * n;
      }
    }
  }
  if (!args.dweight) return;
  S* dweight = args.dweight.as<S>();
  if (!args.accumulate) std::fill_n(dweight, h, S(0));
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < h; ++i) dweight[i] += partial.as<S>()[b * h + i];
}

}  // namespace mixtune::cpu
