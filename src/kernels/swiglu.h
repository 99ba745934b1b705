// SwiGLU (Shazeer 2020) times the routing weight of each row.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// act[r] = silu(g) * u * row_weights[r], where gate_up[r] = [g, u]. gate_up [R, 2F], row_weights [R], act [R, F].
void swiglu_forward(Ctx& ctx, const Tensor& gate_up, const Tensor& row_weights, const Tensor& act);

// From dact [R, F]: dgate_up [R, 2F] (may be gate_up), drow_weights [R], and act again for the weight gradient of w2
// (act may be dact; empty: it is not wanted).
struct SwigluBackward {
  Tensor gate_up, row_weights, dact;
  Tensor dgate_up, drow_weights, act;
};
void swiglu_backward(Ctx& ctx, const SwigluBackward& args);

}  // namespace mixtune
