#include "kernels/rope.h"

#include "kernels/cuda_ops.h"
#include "kernels/on_device.h"
#include "kernels/rope_cpu.h"

namespace mixtune {

void rope_table(Ctx& ctx, const Tensor& positions, double theta, const Tensor& table) {
  MT_CHECK(positions.rows() == table.rows() && table.shape[1] % 2 == 0);
  on_device(
      ctx, "RoPE", table.dtype, [&]<class S>(S) { cpu::rope_table<S>(ctx, positions, theta, table); },
      [&] { cuda::rope_table(ctx, positions, theta, table); });
}

void rope(Ctx& ctx, const RopeArgs& args) {
  MT_CHECK(args.qkv.shape[1] == (args.q_heads + 2 * args.kv_heads) * args.table.shape[1]);
  on_device(
      ctx, "RoPE", args.qkv.dtype, [&]<class S>(S) { cpu::rope<S>(args); }, [&] { cuda::rope(ctx, args); });
}

}  // namespace mixtune
