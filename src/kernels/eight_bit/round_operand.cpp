#include "kernels/eight_bit/round_operand.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/round_operand_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void round_operand(Ctx& ctx, const RoundOperand& args) {
  MT_CHECK(args.x.shape == args.y.shape && args.x.dtype == args.y.dtype);
  MT_CHECK(args.x.shape.rank() == 3 || (args.x.shape.rank() == 2 && args.live <= args.x.rows()));
  const Frame frame(ctx);
  const bool whole = args.bits.blocks.rows == 0;
  const int64_t matrices = args.x.shape.rank() == 3 ? args.x.shape[0] : 1;
  const Tensor amax =
      whole && ctx.like_gpu() ? ctx.stack.push("largest magnitudes", {matrices}, DType::kI32) : Tensor{};
  on_device(
      ctx, "operands to 8 bits", args.x.dtype, [&]<class S>(S) { cpu::round_operand<S>(args); },
      [&] { cuda::round_operand(ctx, args, amax); });
}

}  // namespace mixtune
