#include "kernels/moe/router_loss.h"

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_loss_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void router_loss(Ctx& ctx, const RouterLoss& args) {
  const Shape shape = {args.stats.shape[0], args.stats.shape[2]};
  MT_CHECK(args.type == RouterLossType::kHuggingface || args.type == RouterLossType::kSwitch ||
           (args.type == RouterLossType::kGlobal && args.counts.shape == shape));
  MT_CHECK(args.prob_grad.shape == shape && args.loss.elements() == 1);
  on_device(
      ctx, "router loss", args.stats.dtype, [&](auto) { cpu::router_loss(args); },
      [&] { cuda::router_loss(ctx, args); });
}

}  // namespace mixtune
