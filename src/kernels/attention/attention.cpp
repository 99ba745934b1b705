#include "kernels/attention/attention.h"

#include "kernels/attention/attention_cpu.h"
#include "kernels/attention/attention_plans.h"
#include "kernels/attention/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

void check_shape(const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  MT_CHECK(qkv.shape[1] == (shape.q_heads + 2 * shape.kv_heads) * shape.head_dim);
  MT_CHECK(out.shape == Shape({qkv.rows(), shape.q_heads * shape.head_dim}) && out.dtype == qkv.dtype);
  MT_CHECK(lse.shape == Shape({qkv.rows(), shape.q_heads}));
  MT_CHECK(shape.host_doc_offsets.rows() > 0 && shape.host_doc_offsets.rows() == shape.doc_offsets.rows());
}

// Counts cuDNN's backward pass alone: nothing else in attention takes nearly as much of a GPU's stack.
void count_scratch(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv) {
  if (!ctx.is_meta() || qkv.dtype != DType::kBF16) return;
  const Stack::Frame frame(ctx.stack);
  const AttentionPlanKey plan(Pass::kBackward, shape,
                              {.tokens = align_rows(qkv.rows()), .documents = shape.host_doc_offsets.rows() - 1});
  ctx.stack.push("cuDNN attention", {plan.backward_bytes()}, DType::kU8);
}

}  // namespace

void attention_forward(Ctx& ctx, const AttentionShape& shape, const Tensor& qkv, const Tensor& out, const Tensor& lse) {
  check_shape(shape, qkv, out, lse);
  on_device(
      ctx, "attention", qkv.dtype, [&]<class S>(S) { cpu::attention_forward<S>(ctx, shape, qkv, out, lse); },
      [&] { cuda::attention_forward(ctx, shape, qkv, out, lse); });
}

void attention_backward(Ctx& ctx, const AttentionShape& shape, const AttentionBackward& args) {
  check_shape(shape, args.qkv, args.out, args.lse);
  MT_CHECK(args.dqkv.shape == args.qkv.shape && args.dout.shape == args.out.shape);
  count_scratch(ctx, shape, args.qkv);
  on_device(
      ctx, "attention, backward", args.qkv.dtype, [&]<class S>(S) { cpu::attention_backward<S>(ctx, shape, args); },
      [&] { cuda::attention_backward(ctx, shape, args); });
}

std::string attention_backend(Ctx& ctx, const AttentionShape& shape, DType dtype) {
  return ctx.gpu ? cuda::attention_backend(*ctx.gpu, shape, dtype) : "own kernels";
}

}  // namespace mixtune
