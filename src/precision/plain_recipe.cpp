#include "precision/plain_recipe.h"

#include "kernels/moe/adapted_swiglu.h"
#include "kernels/swiglu.h"

namespace mixtune {

namespace {

// The parts of adapters that SwiGLU adds, and whose gradients it sums there. The others are added to its operands.
bool is_taken(const Ctx& ctx, const Adapter& adapter, DType dtype, int64_t ffn) {
  return adapter && adapted_swiglu_takes(ctx, {dtype, adapter.b.shape[0], adapter.b.shape[2], ffn});
}
// Only where forward leaves u.
GateUpPairs gate_up_pairs(const Ctx& ctx, const Adapter& adapter, const Tensor& gate_up) {
  if (!adapter.u || !is_taken(ctx, adapter, gate_up.dtype, gate_up.shape[1] / 2)) return {};
  return {.u = adapter.u, .b = adapter.b, .modules = adapter.modules, .scale = adapter.scale_of_left()};
}
// Not beside dropout, which would drop out some of v A.
DownPair down_pair(const Ctx& ctx, const Adapter& adapter, const Tensor& dact) {
  if (adapter.dropout || !is_taken(ctx, adapter, dact.dtype, dact.shape[1])) return {};
  return {.v = adapter.v, .a = adapter.a};
}

}  // namespace

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
  if (const GateUpPairs pairs = gate_up_pairs(ctx, args.gate_up_adapter, args.gate_up); pairs.b)
    adapted_swiglu_forward(ctx, {.gate_up = args.gate_up,
                                 .row_weights = args.row_weights,
                                 .groups = args.groups,
                                 .gate_up_pairs = pairs,
                                 .act = act});
  else
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
  const AdapterForward part = {.x = args.x, .y = args.gate_up, .groups = &args.groups};
  const bool left = static_cast<bool>(gate_up_pairs(ctx, args.adapter, args.gate_up).b);
  if (left) write_inner(ctx, args.adapter, part);
  const bool adapted = !left && write_adapter(ctx, args.adapter, part);
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
  const Tensor dgate_up = args.dgate_up.values;
  const int64_t rows = args.dy.rows();
  const DownPair pair = down_pair(ctx, args.down_adapter, dact);
  {
    const Range range(ctx, "down, data gradient");
    const AdapterDataGradient part = {.dy = args.dy, .dx = dact, .groups = &args.groups};
    if (pair.a) write_inner_gradient(ctx, args.down_adapter, part);
    const bool adapted = !pair.a && write_adapter_data_gradient(ctx, args.down_adapter, part);
    multiply(ctx, {.kind = Kind::kDataGradient,
                   .left = args.dy,
                   .right = args.down_weight.values,
                   .result = dact,
                   .live = rows,
                   .groups = &args.groups,
                   .accumulate = adapted});
  }
  swiglu_backward(ctx, args, pair, dact);
  const Tensor act = dact;
  {
    const Range range(ctx, "down, weight gradient");
    weight_gradient(ctx, args.ddown_weight, {.left = args.dy, .right = act, .live = rows, .groups = &args.groups});
    Adapter adapter = args.down_adapter;
    if (pair.a) adapter.da = {};
    adapter_weight_gradient(ctx, adapter, {.x = act, .dy = args.dy, .groups = &args.groups});
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
  Adapter adapter = args.adapter;
  if (gate_up_pairs(ctx, adapter, args.dgate_up.values).b) adapter.db = {};
  adapter_weight_gradient(ctx, adapter, {.x = args.x, .dy = args.dgate_up.values, .groups = &args.groups});
}

void PlainRecipe::swiglu_backward(Ctx& ctx, const ExpertMlpBackward& args, const DownPair& pair,
                                  const Tensor& dact) const {
  const Adapter &gate_up = args.gate_up_adapter, &down = args.down_adapter;
  const GateUpPairs pairs = gate_up_pairs(ctx, gate_up, args.gate_up);
  if (!pairs.b && !pair.a)
    return mixtune::swiglu_backward(ctx, {.gate_up = args.gate_up,
                                          .row_weights = args.row_weights,
                                          .dact = dact,
                                          .dgate_up = args.dgate_up.values,
                                          .drow_weights = args.drow_weights,
                                          .act = dact});
  const bool reads_act = args.ddown_weight.tensor || (down && (!pair.a || !down.u));
  adapted_swiglu_backward(ctx, {.gate_up = args.gate_up,
                                .row_weights = args.row_weights,
                                .dact = dact,
                                .groups = args.groups,
                                .gate_up_pairs = pairs,
                                .down_pair = pair,
                                .dgate_up = args.dgate_up.values,
                                .drow_weights = args.drow_weights,
                                .act = reads_act ? dact : Tensor{},
                                .db = pairs.b ? gate_up.db.tensor : Tensor{},
                                .da = pair.a ? down.da.tensor : Tensor{},
                                .accumulate_db = gate_up.db.accumulate,
                                .accumulate_da = down.da.accumulate});
}

}  // namespace mixtune
