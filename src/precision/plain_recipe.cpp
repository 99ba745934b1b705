#include "precision/plain_recipe.h"

#include "kernels/swiglu.h"

namespace mixtune {

void plain_linear(Ctx& ctx, const Recipe::Linear& args) {
  gemm(ctx, {.a = args.x, .b = args.weight.values, .c = args.y, .trans_b = true, .accumulate = args.accumulate_y});
}

void plain_linear_backward(Ctx& ctx, const Recipe::LinearBackward& args) {
  PlainRecipe().linear_backward(ctx, args);
}

void PlainRecipe::multiply(Ctx& ctx, const Product& p) const {
  const bool gradient = p.kind == Kind::kWeightGradient, forward = p.kind == Kind::kForward;
  if (!p.groups)
    gemm(ctx, {.a = p.left,
               .b = p.right,
               .c = p.result,
               .trans_a = gradient,
               .trans_b = forward,
               .accumulate = p.accumulate});
  else if (gradient)
    grouped_wgrad(ctx, {.dy = p.left, .x = p.right, .dw = p.result, .groups = *p.groups, .accumulate = p.accumulate});
  else
    grouped_gemm(ctx, {.x = p.left,
                       .w = p.right,
                       .y = p.result,
                       .groups = *p.groups,
                       .trans_w = forward,
                       .accumulate = p.accumulate});
}

void PlainRecipe::weight_gradient(Ctx& ctx, const WeightGradient& dw, Product product) const {
  if (!dw.tensor) return;
  product.kind = Kind::kWeightGradient;
  product.result = dw.tensor;
  product.accumulate = dw.accumulate;
  multiply(ctx, product);
}

void PlainRecipe::linear(Ctx& ctx, const Linear& args) const {
  multiply(ctx, {.kind = Kind::kForward,
                 .left = args.x,
                 .right = args.weight.values,
                 .result = args.y,
                 .live = args.live,
                 .accumulate = args.accumulate_y});
}

void PlainRecipe::linear_backward(Ctx& ctx, const LinearBackward& args) const {
  if (args.dx)
    multiply(ctx, {.kind = Kind::kDataGradient,
                   .left = args.dy,
                   .right = args.weight.values,
                   .result = args.dx,
                   .live = args.live,
                   .accumulate = args.accumulate_dx});
  weight_gradient(ctx, args.dweight, {.left = args.dy, .right = args.x, .live = args.live});
}

void PlainRecipe::expert_mlp(Ctx& ctx, const ExpertMlp& args) const {
  const Frame frame(ctx);
  const Tensor act =
      ctx.stack.push("expert activation", {args.x.rows(), args.down_weight.values.shape[2]}, args.x.dtype);
  expert_gate_up(ctx, {.x = args.x,
                       .weight = args.gate_up_weight,
                       .groups = args.groups,
                       .gate_up = args.gate_up,
                       .adapter = args.gate_up_adapter});
  swiglu_forward(ctx, args.gate_up, args.row_weights, act);
  const Range range(ctx, "down");
  const bool adapted = write_adapter(ctx, args.down_adapter, {.x = act, .y = args.y, .groups = &args.groups});
  multiply(ctx, {.kind = Kind::kForward,
                 .left = act,
                 .right = args.down_weight.values,
                 .result = args.y,
                 .live = act.rows(),
                 .groups = &args.groups,
                 .accumulate = adapted});
}

void PlainRecipe::expert_gate_up(Ctx& ctx, const GateUp& args) const {
  const Range range(ctx, "gate-up");
  const bool adapted = write_adapter(ctx, args.adapter, {.x = args.x, .y = args.gate_up, .groups = &args.groups});
  multiply(ctx, {.kind = Kind::kForward,
                 .left = args.x,
                 .right = args.weight.values,
                 .result = args.gate_up,
                 .live = args.x.rows(),
                 .groups = &args.groups,
                 .accumulate = adapted});
}

Recipe::GateUpGradient PlainRecipe::push_gate_up_gradient(Ctx&, const Tensor& gate_up, const Weight&) const {
  return {.values = gate_up, .codes = {}};
}

void PlainRecipe::expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const {
  const Frame frame(ctx);
  const Tensor dact =
      ctx.stack.push("expert activation gradient", {args.dy.rows(), args.down_weight.values.shape[2]}, args.dy.dtype);
  const Tensor act = dact, dgate_up = args.dgate_up.values;
  const int64_t rows = args.dy.rows();
  {
    const Range range(ctx, "down, data gradient");
    const bool adapted =
        write_adapter_data_gradient(ctx, args.down_adapter, {.dy = args.dy, .dx = dact, .groups = &args.groups});
    multiply(ctx, {.kind = Kind::kDataGradient,
                   .left = args.dy,
                   .right = args.down_weight.values,
                   .result = dact,
                   .live = rows,
                   .groups = &args.groups,
                   .accumulate = adapted});
  }
  swiglu_backward(ctx, {.gate_up = args.gate_up,
                        .row_weights = args.row_weights,
                        .dact = dact,
                        .dgate_up = dgate_up,
                        .drow_weights = args.drow_weights,
                        .act = act});
  {
    const Range range(ctx, "down, weight gradient");
    weight_gradient(ctx, args.ddown_weight, {.left = args.dy, .right = act, .live = rows, .groups = &args.groups});
    adapter_weight_gradient(ctx, args.down_adapter, {.x = act, .dy = args.dy, .groups = &args.groups});
  }
  const Range range(ctx, "gate-up, data gradient");
  const bool adapted =
      write_adapter_data_gradient(ctx, args.gate_up_adapter, {.dy = dgate_up, .dx = args.dx, .groups = &args.groups});
  multiply(ctx, {.kind = Kind::kDataGradient,
                 .left = dgate_up,
                 .right = args.gate_up_weight.values,
                 .result = args.dx,
                 .live = rows,
                 .groups = &args.groups,
                 .accumulate = adapted});
}

void PlainRecipe::expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const {
  const Range range(ctx, "gate-up, weight gradient");
  weight_gradient(ctx, args.dweight,
                  {.left = args.dgate_up.values, .right = args.x, .live = args.x.rows(), .groups = &args.groups});
  adapter_weight_gradient(ctx, args.adapter, {.x = args.x, .dy = args.dgate_up.values, .groups = &args.groups});
}

}  // namespace mixtune
