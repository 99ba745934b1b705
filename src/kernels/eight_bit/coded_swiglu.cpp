#include "kernels/eight_bit/coded_swiglu.h"

#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/swiglu.h"
#include "tensor/profiler.h"

namespace mixtune {

namespace {

// The CPU's twins: the definition; of MX, a GPU's too.
void forward_in_turn(Ctx& ctx, const CodedSwigluForward& args) {
  const Tensor act = ctx.stack.push("activation", {args.gate_up.rows(), args.gate_up.shape[1] / 2}, args.gate_up.dtype);
  swiglu_forward(ctx, args.gate_up, args.row_weights, act);
  quantise(ctx, {.x = act, .groups = args.groups, .scale = args.scale, .rows = args.act_rows});
}

void backward_in_turn(Ctx& ctx, const CodedSwigluBackward& args) {
  const Tensor act = ctx.stack.push("activation", args.dact.shape, args.dact.dtype),
               dgate_up = ctx.stack.push("gate-up gradient", args.gate_up.shape, args.gate_up.dtype);
  swiglu_backward(ctx, {.gate_up = args.gate_up,
                        .row_weights = args.row_weights,
                        .dact = args.dact,
                        .dgate_up = dgate_up,
                        .drow_weights = args.drow_weights,
                        .act = act});
  quantise(ctx, {.x = dgate_up,
                 .groups = args.groups,
                 .scale = args.scale,
                 .rows = args.dgate_up_rows,
                 .columns = args.dgate_up_columns});
  quantise(ctx, {.x = act, .groups = args.groups, .scale = args.scale, .turned = args.act_turned});
}

bool has_kernel(const Ctx& ctx, ScaleRule scale) {
  return ctx.like_gpu() && scale != ScaleRule::kMx;
}

}  // namespace

void coded_swiglu_forward(Ctx& ctx, const CodedSwigluForward& args) {
  const Frame frame(ctx);
  if (!has_kernel(ctx, args.scale)) return forward_in_turn(ctx, args);
  const Range range(ctx, "SwiGLU");
  if (!ctx.is_meta()) cuda::coded_swiglu_forward(ctx, args);
}

void coded_swiglu_backward(Ctx& ctx, const CodedSwigluBackward& args) {
  const Frame frame(ctx);
  if (!has_kernel(ctx, args.scale)) return backward_in_turn(ctx, args);
  const Range range(ctx, "SwiGLU, backward");
  const Tensor parts = ctx.stack.push("row weights gradient, by 128 columns",
                                      {args.dact.shape[1] / kScaleBlock, args.dact.rows()}, DType::kF32);
  if (!ctx.is_meta()) cuda::coded_swiglu_backward(ctx, args, parts);
}

}  // namespace mixtune
