#include "kernels/eight_bit/operand_health.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/operand_health_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void operand_health(Ctx& ctx, const OperandHealth& args) {
  MT_CHECK(args.x.shape.rank() == 3 || (args.x.shape.rank() == 2 && args.live <= args.x.rows()));
  MT_CHECK(args.tally.dtype == DType::kI64 && args.tally.elements() == kHealthNumbers);
  const Frame frame(ctx);
  const Tensor amax = push_matrix_amax(ctx, args.x, args.bits);
  on_device(
      ctx, "operands in 8 bits, looked at", args.x.dtype, [&]<class S>(S) { cpu::operand_health<S>(args); },
      [&] { cuda::operand_health(ctx, args, amax); });
}

}  // namespace mixtune
