#include "kernels/moe/router.h"

#include "kernels/gemm/gemm.h"
#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_cpu.h"
#include "kernels/on_device.h"

namespace mixtune {

void router_logits(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& logits) {
  MT_CHECK(logits.shape == (Shape{x.rows(), weight.rows()}) && weight.shape[1] == x.shape[1]);
  on_device(
      ctx, "router", x.dtype, [&](auto) { gemm(ctx, {.a = x, .b = weight, .c = logits, .trans_b = true}); },
      [&] { cuda::router_logits(ctx, x, weight, logits); });
}

namespace cpu {

static void router_logits_backward(Ctx& ctx, const RouterLogitsBackward& args) {
  gemm(ctx, {.a = args.dlogits, .b = args.weight, .c = args.dx, .accumulate = true});
  if (!args.dweight) return;
  gemm(ctx, {.a = args.dlogits, .b = args.x, .c = args.dweight, .trans_a = true, .accumulate = args.accumulate});
}

}  // namespace cpu

void router_logits_backward(Ctx& ctx, const RouterLogitsBackward& args) {
  MT_CHECK(args.dlogits.shape == (Shape{args.x.rows(), args.weight.rows()}) && args.dx.shape == args.x.shape);
  MT_CHECK(args.dx.data != args.x.data && (!args.dweight || args.dweight.shape == args.weight.shape));
  on_device(
      ctx, "router, backward", args.x.dtype, [&](auto) { cpu::router_logits_backward(ctx, args); },
      [&] { cuda::router_logits_backward(ctx, args); });
}

void router_forward(Ctx& ctx, const RouterForward& args) {
  MT_CHECK(args.experts.shape[1] <= args.logits.shape[1] && args.live <= args.logits.rows());
  MT_CHECK(args.weights.shape == args.experts.shape && args.stats.shape == (Shape{2, args.logits.shape[1]}));
  MT_CHECK(!args.bias || (args.bias.shape == (Shape{args.logits.shape[1]}) && args.bias.dtype == DType::kF32));
  MT_CHECK(!args.offsets || (args.offsets.shape == (Shape{args.logits.shape[1]}) && !args.bias));
  on_device(
      ctx, "router", args.logits.dtype, [&]<class S>(S) { cpu::router_forward<S>(ctx, args); },
      [&] { cuda::router_forward(ctx, args); });
}

void router_backward(Ctx& ctx, const RouterBackward& args) {
  MT_CHECK(args.dlogits.shape == args.logits.shape && args.dweights.shape == args.experts.shape);
  MT_CHECK(args.weights.shape == args.experts.shape && args.live <= args.logits.rows());
  on_device(
      ctx, "router, backward", args.logits.dtype, [&]<class S>(S) { cpu::router_backward<S>(ctx, args); },
      [&] { cuda::router_backward(ctx, args); });
}

}  // namespace mixtune
