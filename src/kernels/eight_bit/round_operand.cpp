#include "kernels/eight_bit/round_operand.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/round_operand_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void round_operand(Ctx& ctx, const RoundOperand& args) {
  MT_CHECK(args.x.shape == args.y.shape && args.x.dtype == args.y.dtype);
  MT_CHECK(args.x.shape.rank() == 3 || (args.x.shape.rank() == 2 && args.live <= args.x.rows()));
  on_device(
      ctx, "operands to 8 bits", args.x.dtype, [&]<class S>(S) { cpu::round_operand<S>(args); },
      [&] { cuda::round_operand(ctx, args); });
}

}  // namespace mixtune
