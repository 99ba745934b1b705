#include "kernels/moe/capacity.h"

#include "kernels/moe/capacity_cpu.h"
#include "kernels/moe/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

void drop_pairs(Ctx& ctx, const DropPairs& args) {
  MT_CHECK(args.weights.shape == args.experts.shape && args.sent.shape == args.experts.shape);
  MT_CHECK(args.most > 0);
  MT_CHECK(!args.dropped || args.dropped.elements() == 2);
  on_device(
      ctx, "expert capacity", args.weights.dtype, [&]<class S>(S) { cpu::drop_pairs<S>(ctx, args); },
      [&] { cuda::drop_pairs(ctx, args); });
}

}  // namespace mixtune
