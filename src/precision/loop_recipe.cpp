#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "precision/plain_recipe.h"

namespace mixtune {

namespace {

class LoopRecipe : public Recipe {
 public:
  explicit LoopRecipe(std::unique_ptr<Recipe> recipe) : recipe_(std::move(recipe)) {}

  void keep(std::span<const Weight> weights, bool training) override {
    // An expert's part of a weight has no number of its own.
    std::vector<Weight> dense;
    std::ranges::copy_if(weights, std::back_inserter(dense),
                         [](const Weight& w) { return w.values.shape.rank() == 2; });
    recipe_->keep(dense, training);
  }
  size_t kept_bytes() const override { return recipe_->kept_bytes(); }

  void linear(Ctx& ctx, const Linear& args) const override { recipe_->linear(ctx, args); }
  void linear_backward(Ctx& ctx, const LinearBackward& args) const override { recipe_->linear_backward(ctx, args); }

  void expert_gate_up(Ctx& ctx, const GateUp& args) const override {
    for_each_expert(ctx, args.groups, args.gate_up,
                    [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
                      recipe_->expert_gate_up(ctx, {.x = args.x.slice(begin, rows),
                                                    .weight = args.weight.values.slice(e, 1),
                                                    .groups = group,
                                                    .gate_up = args.gate_up.slice(begin, rows),
                                                    .adapter = args.adapter.of_expert(e, begin, rows)});
                    });
  }

  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override {
    for_each_expert(ctx, args.groups, args.y, [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
      recipe_->expert_mlp(ctx, {.x = args.x.slice(begin, rows),
                                .gate_up_weight = args.gate_up_weight.values.slice(e, 1),
                                .down_weight = args.down_weight.values.slice(e, 1),
                                .row_weights = args.row_weights.slice(begin, rows),
                                .groups = group,
                                .gate_up = args.gate_up.slice(begin, rows),
                                .y = args.y.slice(begin, rows),
                                .gate_up_adapter = args.gate_up_adapter.of_expert(e, begin, rows),
                                .down_adapter = args.down_adapter.of_expert(e, begin, rows)});
    });
  }

  GateUpGradient push_gate_up_gradient(Ctx& ctx, const Tensor& gate_up, const Weight& down_weight) const override {
    return recipe_->push_gate_up_gradient(ctx, gate_up, down_weight.values.slice(0, 1));
  }

  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override {
    for_each_expert(ctx, args.groups, args.dx, [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
      recipe_->expert_mlp_backward(ctx, {.gate_up_weight = args.gate_up_weight.values.slice(e, 1),
                                         .down_weight = args.down_weight.values.slice(e, 1),
                                         .row_weights = args.row_weights.slice(begin, rows),
                                         .groups = group,
                                         .gate_up = args.gate_up.slice(begin, rows),
                                         .dy = args.dy.slice(begin, rows),
                                         .dgate_up = part(args.dgate_up, begin, rows),
                                         .dx = args.dx.slice(begin, rows),
                                         .drow_weights = args.drow_weights.slice(begin, rows),
                                         .ddown_weight = part(args.ddown_weight, e),
                                         .leaves_gradient = args.leaves_gradient,
                                         .gate_up_adapter = args.gate_up_adapter.of_expert(e, begin, rows),
                                         .down_adapter = args.down_adapter.of_expert(e, begin, rows)});
    });
  }

  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override {
    for_each_group(args.groups, [&](int64_t e, int64_t begin, int64_t rows, const RowGroups& group) {
      recipe_->expert_gate_up_weight_gradient(ctx, {.x = args.x.slice(begin, rows),
                                                    .kept_rows = {},
                                                    .dgate_up = part(args.dgate_up, begin, rows),
                                                    .groups = group,
                                                    .dweight = part(args.dweight, e),
                                                    .adapter = args.adapter.of_expert(e, begin, rows)});
    });
  }

 private:
  static WeightGradient part(const WeightGradient& gradient, int64_t e) {
    return {gradient.tensor ? gradient.tensor.slice(e, 1) : Tensor{}, gradient.accumulate};
  }

  // Rows [begin, begin + rows). The codes of their transpose lie by themselves, as one expert's products read them.
  static GateUpGradient part(const GateUpGradient& all, int64_t begin, int64_t rows) {
    if (!all.codes) return {.values = all.values.slice(begin, rows), .codes = {}};
    const Tensor codes = all.codes.codes;
    const int64_t columns = codes.shape[0];
    const auto scales_at = [&](int64_t row) {
      return scales_begin(all.codes.scales.dtype, CodesForm::kColumns, {.begin = row, .columns = columns});
    };
    return {.values = {},
            .codes = {.codes = codes.view({codes.shape[1], columns}).slice(begin, rows).view({columns, rows}),
                      .scales = all.codes.scales.slice(scales_at(begin), scales_at(begin + rows) - scales_at(begin))}};
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

  std::unique_ptr<Recipe> recipe_;
};

}  // namespace

std::unique_ptr<Recipe> make_loop_recipe(std::unique_ptr<Recipe> recipe) {
  return std::make_unique<LoopRecipe>(std::move(recipe));
}

}  // namespace mixtune
