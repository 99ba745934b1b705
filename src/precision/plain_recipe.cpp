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
    const Frame frame(ctx);
    const Tensor act = ctx.stack.push("expert activation", {args.x.rows(), args.down_weight.shape[2]}, args.x.dtype);
    expert_gate_up(ctx, args.x, args.gate_up_weight, args.groups, args.gate_up);
    swiglu_forward(ctx, args.gate_up, args.row_weights, act);
    product(ctx, "down", {.x = act, .w = args.down_weight, .y = args.y, .groups = args.groups, .trans_w = true});
  }

  void expert_gate_up(Ctx& ctx, const Tensor& x, const Tensor& gate_up_weight, const RowGroups& groups,
                      const Tensor& gate_up) const override {
    product(ctx, "gate-up", {.x = x, .w = gate_up_weight, .y = gate_up, .groups = groups, .trans_w = true});
  }

  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override {
    const Frame frame(ctx);
    const Tensor dact =
        ctx.stack.push("expert activation gradient", {args.x.rows(), args.down_weight.shape[2]}, args.x.dtype);
    const Tensor act = dact, dgate_up = args.gate_up;
    product(ctx, "down, data gradient", {.x = args.dy, .w = args.down_weight, .y = dact, .groups = args.groups});
    swiglu_backward(ctx, {.gate_up = args.gate_up,
                          .row_weights = args.row_weights,
                          .dact = dact,
                          .dgate_up = dgate_up,
                          .drow_weights = args.drow_weights,
                          .act = act});
    weight_gradient(ctx, "down, weight gradient", args.dy, act, args.groups, args.ddown_weight);
    product(ctx, "gate-up, data gradient",
            {.x = dgate_up, .w = args.gate_up_weight, .y = args.dx, .groups = args.groups});
  }

  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override {
    weight_gradient(ctx, "gate-up, weight gradient", args.dgate_up, args.x, args.groups, args.dweight);
  }

 private:
  // A grouped product, named as a part of a step.
  static void product(Ctx& ctx, const char* name, const GroupedGemmArgs& args) {
    const Range range(ctx, name);
    grouped_gemm(ctx, args);
  }

  static void weight_gradient(Ctx& ctx, const char* name, const Tensor& dy, const Tensor& x, const RowGroups& groups,
                              const WeightGradient& dw) {
    if (!dw.tensor) return;
    const Range range(ctx, name);
    grouped_wgrad(ctx, {.dy = dy, .x = x, .dw = dw.tensor, .groups = groups, .accumulate = dw.accumulate});
  }
};

// Takes one expert after the other.
class LoopRecipe : public PlainRecipe {
 public:
  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override {
    for_each_expert(ctx, args.groups, args.y, [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
      PlainRecipe::expert_mlp(ctx, {.x = args.x.slice(begin, rows),
                                    .gate_up_weight = args.gate_up_weight.slice(e, 1),
                                    .down_weight = args.down_weight.slice(e, 1),
                                    .row_weights = args.row_weights.slice(begin, rows),
                                    .groups = group,
                                    .gate_up = args.gate_up.slice(begin, rows),
                                    .y = args.y.slice(begin, rows)});
    });
  }

  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override {
    for_each_expert(ctx, args.groups, args.dx, [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
      PlainRecipe::expert_mlp_backward(ctx, {.x = args.x.slice(begin, rows),
                                             .gate_up_weight = args.gate_up_weight.slice(e, 1),
                                             .down_weight = args.down_weight.slice(e, 1),
                                             .row_weights = args.row_weights.slice(begin, rows),
                                             .groups = group,
                                             .gate_up = args.gate_up.slice(begin, rows),
                                             .dy = args.dy.slice(begin, rows),
                                             .dx = args.dx.slice(begin, rows),
                                             .drow_weights = args.drow_weights.slice(begin, rows),
                                             .ddown_weight = part(args.ddown_weight, e)});
    });
  }

  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override {
    for_each_group(args.groups, [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
      PlainRecipe::expert_gate_up_weight_gradient(ctx, {.x = args.x.slice(begin, rows),
                                                        .dgate_up = args.dgate_up.slice(begin, rows),
                                                        .groups = group,
                                                        .dweight = part(args.dweight, e)});
    });
  }

 private:
  static WeightGradient part(const WeightGradient& gradient, int64_t e) {
    return {gradient.tensor ? gradient.tensor.slice(e, 1) : Tensor{}, gradient.accumulate};
  }

  // Calls run(expert, its first row, its rows and gap, the expert as the only group of those rows). Returns the end of
  // the last expert's rows.
  template <class Run>
  static int64_t for_each_group(const RowGroups& groups, const Run& run) {
    int64_t end = 0;
    for (int64_t e = 0; e < groups.groups; ++e) {
      const int32_t begin = 0, count = groups.count[e];
      const int64_t rows = align_rows(count);
      run(e, groups.begin[e], rows, RowGroups{&begin, &count, 1});
      end = groups.begin[e] + rows;
    }
    return end;
  }
  // Does the same; zeroes rows of `y` behind the last expert's.
  template <class Run>
  static void for_each_expert(Ctx& ctx, const RowGroups& groups, const Tensor& y, const Run& run) {
    const int64_t end = for_each_group(groups, run);
    if (end < y.rows()) zero(ctx, y.slice(end, y.rows() - end));
  }
};

}  // namespace

std::unique_ptr<Recipe> make_plain_recipe(ExpertsImplementation experts) {
  if (experts == ExpertsImplementation::kLoop) return std::make_unique<LoopRecipe>();
  return std::make_unique<PlainRecipe>();
}

}  // namespace mixtune
