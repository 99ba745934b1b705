#include "kernels/attention.h"

#include "kernels/attention_cpu.h"
#include "kernels/dispatch.h"

namespace mixtune {

void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  MT_CHECK(qkv.shape[1] == (shape.q_heads + 2 * shape.kv_heads) * shape.head_dim);
  on_device(ctx, qkv.dtype, [&]<class S>(S) { cpu::attention_forward<S>(ctx, shape, qkv, out, lse); });
}

void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  MT_CHECK(args.dqkv.shape == args.qkv.shape && args.dout.shape == args.out.shape);
  on_device(ctx, args.qkv.dtype, [&]<class S>(S) { cpu::attention_backward<S>(ctx, shape, args); });
}

}  // namespace mixtune
