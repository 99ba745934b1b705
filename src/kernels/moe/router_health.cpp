#include "kernels/moe/router_health.h"

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_health_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void router_health(Ctx& ctx, const RouterHealth& args) {
  MT_CHECK(args.live <= args.logits.rows() && args.stats.shape[1] == args.logits.shape[1]);
  MT_CHECK(args.tally.elements() == router_tally_size(args.logits.shape[1]));
  const Stack::Frame frame(ctx.stack);
  const Tensor parts = ctx.stack.push("router health", {2, kHealthParts}, DType::kF64);
  on_device(
      ctx, "router health", args.logits.dtype, [&]<class S>(S) { cpu::router_health<S>(args, parts); },
      [&] { cuda::router_health(ctx, args, parts); });
}

}  // namespace mixtune
