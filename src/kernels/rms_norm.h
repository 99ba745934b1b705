// RMSNorm (Zhang, Sennrich 2019) with the residual add before it.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// r = x + delta (delta optional), rstd[t] = 1 / sqrt(mean(r[t]^2) + eps), y = r * rstd * weight.
// x, delta, r, y [T, H]; weight [H]; rstd [T]. Without delta, r is empty (it is x). r may be x or delta.
struct RmsNormForward {
  Tensor x, delta, weight;
  double eps;
  Tensor r, y, rstd;
};
void rms_norm_forward(Ctx& ctx, const RmsNormForward& args);

// Computes y = r * rstd * weight again, from what forward saved.
void rms_norm_recompute(Ctx& ctx, const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y);

// With n = r * rstd and g = dy * weight:
//   dr += rstd * (g - n * mean(g * n))      dr [T, H] holds the gradient of the residual path on entry
//   dweight = sum_t dy * n, or += with accumulate; skipped where dweight is empty
// dy may not be dr.
struct RmsNormBackward {
  Tensor r, weight, rstd, dy;
  Tensor dr, dweight;
  bool accumulate = false;
};
void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args);

}  // namespace mixtune
