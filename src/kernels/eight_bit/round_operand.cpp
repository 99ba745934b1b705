#include "kernels/eight_bit/round_operand.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/round_operand_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

Tensor push_matrix_amax(Ctx& ctx, const Tensor& x, const EightBits& bits) {
  if (bits.blocks.rows > 0 || !ctx.like_gpu()) return {};
  return ctx.stack.push("largest magnitudes", {x.shape.rank() == 3 ? x.shape[0] : 1}, DType::kI32);
}

void round_operand(Ctx& ctx, const RoundOperand& args) {
  MT_CHECK(args.x.shape == args.y.shape && args.x.dtype == args.y.dtype);
  MT_CHECK(args.x.shape.rank() == 3 || (args.x.shape.rank() == 2 && args.live <= args.x.rows()));
  const Frame frame(ctx);
  const Tensor amax = push_matrix_amax(ctx, args.x, args.bits);
  on_device(
      ctx, "operands to 8 bits", args.x.dtype, [&]<class S>(S) { cpu::round_operand<S>(args); },
      [&] { cuda::round_operand(ctx, args, amax); });
}

}  // namespace mixtune
