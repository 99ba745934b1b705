#include "kernels/optimizer.h"

#include "kernels/dispatch.h"
#include "kernels/optimizer_cpu.h"

namespace mixtune {

double sum_of_squares(Ctx& ctx, const Tensor& x) {
  double sum = 0;
  on_device(ctx, x.dtype, [&]<class S>(S) { sum = cpu::sum_of_squares<S>(ctx, x); });
  return sum;
}

void adamw(Ctx& ctx, const AdamWArgs& args) {
  MT_CHECK(args.grad.shape == args.weight.shape && args.m.shape == args.weight.shape);
  on_device(ctx, args.weight.dtype, [&]<class S>(S) { cpu::adamw<S>(args); });
}

}  // namespace mixtune
