#include "kernels/router.h"

#include "kernels/dispatch.h"
#include "kernels/router_cpu.h"

namespace mixtune {

void router_forward(Ctx& ctx, const RouterForward& args) {
  MT_CHECK(args.experts.shape[1] <= args.logits.shape[1] && args.live <= args.logits.rows());
  on_device(ctx, args.logits.dtype, [&]<class S>(S) { cpu::router_forward<S>(ctx, args); });
}

void router_backward(Ctx& ctx, const RouterBackward& args) {
  MT_CHECK(args.dlogits.shape == args.logits.shape && args.dweights.shape == args.experts.shape);
  on_device(ctx, args.logits.dtype, [&]<class S>(S) { cpu::router_backward<S>(ctx, args); });
}

}  // namespace mixtune
