#include "kernels/moe/router_noise.h"

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_noise_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void router_jitter(Ctx& ctx, const RouterJitter& args) {
  MT_CHECK(args.y.shape == args.x.shape && args.y.dtype == args.x.dtype && args.eps >= 0 && args.eps <= 1);
  on_device(
      ctx, "router", args.x.dtype, [&]<class S>(S) { cpu::router_jitter<S>(args); },
      [&] { cuda::router_jitter(ctx, args); });
}

void draw_experts(Ctx& ctx, const DrawExperts& args) {
  MT_CHECK(args.experts.shape[1] <= args.all_experts && args.live <= args.experts.rows());
  if (ctx.is_meta()) return;
  ctx.like_gpu() ? cuda::draw_experts(ctx, args) : cpu::draw_experts(args);
}

}  // namespace mixtune
