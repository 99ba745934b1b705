#include "kernels/swiglu.h"

#include "kernels/cuda_ops.h"
#include "kernels/on_device.h"
#include "kernels/swiglu_cpu.h"

namespace mixtune {

void swiglu_forward(Ctx& ctx, const Tensor& gate_up, const Tensor& row_weights, const Tensor& act) {
  MT_CHECK(gate_up.shape[1] == 2 * act.shape[1]);
  on_device(
      ctx, "SwiGLU", act.dtype, [&]<class S>(S) { cpu::swiglu_forward<S>(gate_up, row_weights, act); },
      [&] { cuda::swiglu_forward(ctx, gate_up, row_weights, act); });
}

void swiglu_backward(Ctx& ctx, const SwigluBackward& args) {
  MT_CHECK(args.dgate_up.shape == args.gate_up.shape);
  on_device(
      ctx, "SwiGLU, backward", args.dact.dtype, [&]<class S>(S) { cpu::swiglu_backward<S>(args); },
      [&] { cuda::swiglu_backward(ctx, args); });
}

}  // namespace mixtune
