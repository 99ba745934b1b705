#include "kernels/rms_norm.h"

#include "kernels/dispatch.h"
#include "kernels/rms_norm_cpu.h"

namespace mixtune {

void rms_norm_forward(Ctx& ctx, const RmsNormForward& args) {
  MT_CHECK(!args.delta || args.r.shape == args.x.shape);
  on_device(ctx, args.x.dtype, [&]<class S>(S) { cpu::rms_norm_forward<S>(args); });
}

void rms_norm_recompute(Ctx& ctx, const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y) {
  on_device(ctx, r.dtype, [&]<class S>(S) { cpu::rms_norm_recompute<S>(r, weight, rstd, y); });
}

void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args) {
  MT_CHECK(args.dy.data != args.dr.data);
  on_device(ctx, args.r.dtype, [&]<class S>(S) { cpu::rms_norm_backward<S>(ctx, args); });
}

}  // namespace mixtune
