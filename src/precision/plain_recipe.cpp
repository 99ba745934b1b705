#include "kernels/swiglu.h"
#include "precision/recipe.h"

namespace mixtune {

namespace {

class PlainRecipe : public Recipe {
 public:
  void linear(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& y) const override {
    gemm(ctx, {.a = x, .b = weight, .c = y, .trans_b = true});
  }

  void linear_backward(Ctx& ctx, const LinearBackward& args) const override {
    if (args.dx) gemm(ctx, {.a = args.dy, .b = args.weight, .c = args.dx, .accumulate = args.accumulate_dx});
    if (args.dweight.tensor)
      gemm(ctx, {.a = args.dy,
                 .b = args.x,
                 .c = args.dweight.tensor,
                 .trans_a = true,
                 .accumulate = args.dweight.accumulate});
  }

  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override {
    const Stack::Frame frame(ctx.stack);
    const Tensor act = ctx.stack.push("expert activation", {args.x.rows(), args.down_weight.shape[2]}, args.x.dtype);
    grouped_gemm(ctx,
                 {.x = args.x, .w = args.gate_up_weight, .y = args.gate_up, .groups = args.groups, .trans_w = true});
    swiglu_forward(ctx, args.gate_up, args.row_weights, act);
    grouped_gemm(ctx, {.x = act, .w = args.down_weight, .y = args.y, .groups = args.groups, .trans_w = true});
  }

  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override {
    const Stack::Frame frame(ctx.stack);
    const Tensor dact =
        ctx.stack.push("expert activation gradient", {args.x.rows(), args.down_weight.shape[2]}, args.x.dtype);
    const Tensor act = dact, dgate_up = args.gate_up;
    grouped_gemm(ctx, {.x = args.dy, .w = args.down_weight, .y = dact, .groups = args.groups});
    swiglu_backward(ctx, {.gate_up = args.gate_up,
                          .row_weights = args.row_weights,
                          .dact = dact,
                          .dgate_up = dgate_up,
                          .drow_weights = args.drow_weights,
                          .act = act});
    if (args.ddown_weight.tensor)
      grouped_wgrad(ctx, {.dy = args.dy,
                          .x = act,
                          .dw = args.ddown_weight.tensor,
                          .groups = args.groups,
                          .accumulate = args.ddown_weight.accumulate});
    grouped_gemm(ctx, {.x = dgate_up, .w = args.gate_up_weight, .y = args.dx, .groups = args.groups});
    if (args.dgate_up_weight.tensor)
      grouped_wgrad(ctx, {.dy = dgate_up,
                          .x = args.x,
                          .dw = args.dgate_up_weight.tensor,
                          .groups = args.groups,
                          .accumulate = args.dgate_up_weight.accumulate});
  }
};

}  // namespace

std::unique_ptr<Recipe> make_plain_recipe() {
  return std::make_unique<PlainRecipe>();
}

}  // namespace mixtune
