#include "kernels/moe/router_own_loss.h"

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_own_loss_cpu.h"
#include "kernels/on_device.h"
#include "kernels/reduce.h"

namespace mixtune {

void router_z_loss(Ctx& ctx, const RouterZLoss& args) {
  MT_CHECK(args.dlogits.shape == args.logits.shape && args.live <= args.logits.rows() && args.loss.elements() == 1);
  if (args.live == 0) return;
  const Stack::Frame frame(ctx.stack);
  const Tensor squares = ctx.stack.push("squares of log-sum-exp", {args.live}, DType::kF64);
  on_device(
      ctx, "router loss", args.logits.dtype, [&]<class S>(S) { cpu::router_z_loss<S>(args, squares); },
      [&] { cuda::router_z_loss(ctx, args, squares); });
  add_sum(ctx, squares, args.loss);
}

void router_sequence_loss(Ctx& ctx, const RouterSequenceLoss& args) {
  MT_CHECK(args.dlogits.shape == args.logits.shape && args.experts.rows() == args.logits.rows());
  MT_CHECK(args.live <= args.logits.rows() && args.loss.elements() == 1);
  const int64_t documents = args.doc_offsets.rows() - 1;
  if (documents == 0) return;
  const Stack::Frame frame(ctx.stack);
  const RouterSequenceScratch scratch = {
      .prob_grad = ctx.stack.push("router loss gradient of documents", {documents, args.logits.shape[1]}, DType::kF64),
      .losses = ctx.stack.push("router losses of tokens", {args.live}, DType::kF64)};
  on_device(
      ctx, "router loss", args.logits.dtype, [&]<class S>(S) { cpu::router_sequence_loss<S>(ctx, args, scratch); },
      [&] { cuda::router_sequence_loss(ctx, args, scratch); });
  add_sum(ctx, scratch.losses, args.loss);
}

}  // namespace mixtune
