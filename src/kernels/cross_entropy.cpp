#include "kernels/cross_entropy.h"

#include "kernels/cross_entropy_cpu.h"
#include "kernels/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

void cross_entropy(Ctx& ctx, const CrossEntropy& args) {
  MT_CHECK(args.targets.rows() == args.logits.rows() && args.losses.rows() == args.logits.rows());
  MT_CHECK(!args.weights || (args.weights.rows() == args.logits.rows() && args.weights.dtype == DType::kF32));
  MT_CHECK(!args.dlogits || args.dlogits.shape == args.logits.shape);
  on_device(
      ctx, "cross-entropy", args.logits.dtype, [&]<class S>(S) { cpu::cross_entropy<S>(args); },
      [&] { cuda::cross_entropy(ctx, args); });
}

}  // namespace mixtune
