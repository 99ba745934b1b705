#include "kernels/rms_norm.h"

#include "kernels/cuda_ops.h"
#include "kernels/on_device.h"
#include "kernels/rms_norm_cpu.h"

namespace mixtune {

void rms_norm_forward(Ctx& ctx, const RmsNormForward& args) {
  MT_CHECK(!args.delta || args.r.shape == args.x.shape);
  MT_CHECK(args.y.shape == args.x.shape && args.rstd.rows() == args.x.rows());
  on_device(
      ctx, "norm", args.x.dtype, [&]<class S>(S) { cpu::rms_norm_forward<S>(args); },
      [&] { cuda::rms_norm_forward(ctx, args); });
}

void rms_norm_recompute(Ctx& ctx, const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y) {
  on_device(
      ctx, "norm", r.dtype, [&]<class S>(S) { cpu::rms_norm_recompute<S>(r, weight, rstd, y); },
      [&] { cuda::rms_norm_recompute(ctx, r, weight, rstd, y); });
}

void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args) {
  MT_CHECK(args.dy.data != args.dr.data || args.dr.elements() == 0);  // empty tensors of a stack lie in one place
  MT_CHECK(args.dy.shape == args.r.shape && args.dr.shape == args.r.shape);
  on_device(
      ctx, "norm, backward", args.r.dtype, [&]<class S>(S) { cpu::rms_norm_backward<S>(ctx, args); },
      [&] { cuda::rms_norm_backward(ctx, args); });
}

}  // namespace mixtune
