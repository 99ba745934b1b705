#include "precision/plain_recipe.h"

#include "kernels/swiglu.h"

namespace mixtune {

void plain_linear(Ctx& ctx, const Recipe::Linear& args) {
  gemm(ctx, {.a = args.x, .b = args.weight, .c = args.y, .trans_b = true});
}

void plain_linear_backward(Ctx& ctx, const Recipe::LinearBackward& args) {
  PlainRecipe().linear_backward(ctx, args);
}

Tensor PlainRecipe::read(Ctx&, const Operand& operand) const {
  return operand.values;
}

void PlainRecipe::linear(Ctx& ctx, const Linear& args) const {
  const Frame frame(ctx);
  constexpr auto kForward = Product::kForward;
  plain_linear(ctx, {.x = read(ctx, {kForward, Side::kLeft, args.x, args.live, nullptr}),
                     .weight = read(ctx, {kForward, Side::kRight, args.weight, args.weight.rows(), nullptr}),
                     .y = args.y,
                     .live = args.live});
}

void PlainRecipe::linear_backward(Ctx& ctx, const LinearBackward& args) const {
  if (args.dx) {
    const Frame frame(ctx);
    constexpr auto kData = Product::kDataGradient;
    gemm(ctx, {.a = read(ctx, {kData, Side::kLeft, args.dy, args.live, nullptr}),
               .b = read(ctx, {kData, Side::kRight, args.weight, args.weight.rows(), nullptr}),
               .c = args.dx,
               .accumulate = args.accumulate_dx});
  }
  if (args.dweight.tensor) {
    const Frame frame(ctx);
    constexpr auto kWeight = Product::kWeightGradient;
    gemm(ctx, {.a = read(ctx, {kWeight, Side::kLeft, args.dy, args.live, nullptr}),
               .b = read(ctx, {kWeight, Side::kRight, args.x, args.live, nullptr}),
               .c = args.dweight.tensor,
               .trans_a = true,
               .accumulate = args.dweight.accumulate});
  }
}

void PlainRecipe::expert_mlp(Ctx& ctx, const ExpertMlp& args) const {
  const Frame frame(ctx);
  const Tensor act = ctx.stack.push("expert activation", {args.x.rows(), args.down_weight.shape[2]}, args.x.dtype);
  expert_gate_up(ctx, args.x, args.gate_up_weight, args.groups, args.gate_up);
  swiglu_forward(ctx, args.gate_up, args.row_weights, act);
  multiply(ctx, "down", Product::kForward,
           {.x = act, .w = args.down_weight, .y = args.y, .groups = args.groups, .trans_w = true});
}

void PlainRecipe::expert_gate_up(Ctx& ctx, const Tensor& x, const Tensor& gate_up_weight, const RowGroups& groups,
                                 const Tensor& gate_up) const {
  multiply(ctx, "gate-up", Product::kForward,
           {.x = x, .w = gate_up_weight, .y = gate_up, .groups = groups, .trans_w = true});
}

void PlainRecipe::expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const {
  const Frame frame(ctx);
  const Tensor dact =
      ctx.stack.push("expert activation gradient", {args.x.rows(), args.down_weight.shape[2]}, args.x.dtype);
  const Tensor act = dact, dgate_up = args.gate_up;
  multiply(ctx, "down, data gradient", Product::kDataGradient,
           {.x = args.dy, .w = args.down_weight, .y = dact, .groups = args.groups});
  swiglu_backward(ctx, {.gate_up = args.gate_up,
                        .row_weights = args.row_weights,
                        .dact = dact,
                        .dgate_up = dgate_up,
                        .drow_weights = args.drow_weights,
                        .act = act});
  weight_gradient(ctx, "down, weight gradient", args.ddown_weight, {.dy = args.dy, .x = act, .groups = args.groups});
  multiply(ctx, "gate-up, data gradient", Product::kDataGradient,
           {.x = dgate_up, .w = args.gate_up_weight, .y = args.dx, .groups = args.groups});
}

void PlainRecipe::expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const {
  weight_gradient(ctx, "gate-up, weight gradient", args.dweight,
                  {.dy = args.dgate_up, .x = args.x, .groups = args.groups});
}

void PlainRecipe::multiply(Ctx& ctx, const char* name, Product product, GroupedGemmArgs args) const {
  const Range range(ctx, name);
  const Frame frame(ctx);
  args.x = read(ctx, {product, Side::kLeft, args.x, args.x.rows(), &args.groups});
  args.w = read(ctx, {product, Side::kRight, args.w, args.w.rows(), &args.groups});
  grouped_gemm(ctx, args);
}

void PlainRecipe::weight_gradient(Ctx& ctx, const char* name, const WeightGradient& dw, GroupedWgradArgs args) const {
  if (!dw.tensor) return;
  const Range range(ctx, name);
  const Frame frame(ctx);
  args.dy = read(ctx, {Product::kWeightGradient, Side::kLeft, args.dy, args.dy.rows(), &args.groups});
  args.x = read(ctx, {Product::kWeightGradient, Side::kRight, args.x, args.x.rows(), &args.groups});
  args.dw = dw.tensor;
  args.accumulate = dw.accumulate;
  grouped_wgrad(ctx, args);
}

}  // namespace mixtune
