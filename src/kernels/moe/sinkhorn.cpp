#include "kernels/moe/sinkhorn.h"

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/sinkhorn_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void sinkhorn(Ctx& ctx, const Sinkhorn& args) {
  MT_CHECK(args.offsets.shape == (Shape{args.logits.shape[1]}) && args.live <= args.logits.rows());
  MT_CHECK(args.offsets.dtype == args.logits.dtype);
  on_device(
      ctx, "router", args.logits.dtype, [&]<class S>(S) { cpu::sinkhorn<S>(ctx, args); },
      [&] { cuda::sinkhorn(ctx, args); });
}

}  // namespace mixtune
