// What 8 bits lose of the operands of another recipe's products, read once more from their unrounded values. It is done
// where an operand of a layer comes by exactly once, whatever was recomputed: in backward, but of the experts' rows.
#include <algorithm>
#include <utility>

#include "kernels/eight_bit/operand_health.h"
#include "kernels/swiglu.h"
#include "precision/operand_bits.h"
#include "precision/plain_recipe.h"

namespace mixtune {

namespace {

class WatchingRecipe : public Recipe {
 public:
  WatchingRecipe(std::unique_ptr<Recipe> recipe, const RecipeOptions& options)
      : recipe_(std::move(recipe)), options_(options) {}

  void keep(std::span<const Weight> weights, bool training) override { recipe_->keep(weights, training); }
  size_t kept_bytes() const override { return recipe_->kept_bytes(); }
  void watch(const Tensor& tally) override { tally_ = tally; }

  void linear(Ctx& ctx, const Linear& args) const override { recipe_->linear(ctx, args); }
  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override {
    if (is_watched(args.gate_up_weight)) add_groups(ctx, args.gate_up_weight, OperandRole::kInput, args.x, args.groups);
    recipe_->expert_mlp(ctx, args);
  }
  Codes push_kept_rows(Ctx& ctx, const Shape& rows, const Shape& weight) const override {
    return recipe_->push_kept_rows(ctx, rows, weight);
  }
  void expert_gate_up(Ctx& ctx, const GateUp& args) const override { recipe_->expert_gate_up(ctx, args); }
  GateUpGradient push_gate_up_gradient(Ctx& ctx, const Tensor& gate_up, const Weight& down_weight) const override {
    return recipe_->push_gate_up_gradient(ctx, gate_up, down_weight);
  }
  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override {
    recipe_->expert_gate_up_weight_gradient(ctx, args);
  }

  void linear_backward(Ctx& ctx, const LinearBackward& args) const override {
    if (is_watched(args.weight)) {
      add_weight(ctx, args.weight);
      add_rows(ctx, args.weight, OperandRole::kInput, args.x, args.live);
      add_rows(ctx, args.weight, OperandRole::kGradient, args.dy, args.live);
    }
    recipe_->linear_backward(ctx, args);
  }

  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override {
    if (!is_watched(args.gate_up_weight)) return recipe_->expert_mlp_backward(ctx, args);
    add_weight(ctx, args.gate_up_weight);
    add_weight(ctx, args.down_weight);
    add_groups(ctx, args.down_weight, OperandRole::kGradient, args.dy, args.groups);
    add_activations(ctx, args);
    ExpertMlpBackward leaving = args;
    leaving.leaves_gradient = true;
    recipe_->expert_mlp_backward(ctx, leaving);
    add_groups(ctx, args.gate_up_weight, OperandRole::kGradient, args.gate_up, args.groups);
  }

 private:
  bool is_watched(const Weight& weight) const { return tally_ && weight.param >= 0; }

  void add(Ctx& ctx, const Weight& weight, OperandRole role, OperandHealth health) const {
    // As the first product that reads it has it.
    const ProductKind kind = role == OperandRole::kGradient ? ProductKind::kDataGradient : ProductKind::kForward;
    health.bits = operand_bits(options_, kind, role == OperandRole::kWeight ? OperandSide::kRight : OperandSide::kLeft);
    health.tally = tally_.row(weight.param).row(static_cast<int>(role));
    operand_health(ctx, health);
  }
  void add_weight(Ctx& ctx, const Weight& weight) const {
    add(ctx, weight, OperandRole::kWeight, {.x = weight.values, .live = weight.values.shape[-2]});
  }
  void add_rows(Ctx& ctx, const Weight& weight, OperandRole role, const Tensor& x, int64_t live) const {
    add(ctx, weight, role, {.x = x, .live = live});
  }
  void add_groups(Ctx& ctx, const Weight& weight, OperandRole role, const Tensor& x, const RowGroups& groups) const {
    for (int64_t e = 0; e < groups.groups; ++e)
      add_rows(ctx, weight, role, x.slice(groups.begin[e], groups.count[e]), groups.count[e]);
  }

  // What down reads, made again: some recipes write it as codes alone. A few rows at a time, but for a scale that an
  // expert's rows share.
  void add_activations(Ctx& ctx, const ExpertMlpBackward& args) const {
    const bool shared = shares_scale(operand_bits(options_, ProductKind::kForward, OperandSide::kLeft));
    const int64_t most = shared ? args.gate_up.rows() : kRowsMadeAgain;
    for (int64_t e = 0; e < args.groups.groups; ++e)
      for (int64_t done = 0, rows = args.groups.count[e]; done < rows; done += most)
        add_some_activations(ctx, args, args.groups.begin[e] + done, std::min(most, rows - done));
  }
  void add_some_activations(Ctx& ctx, const ExpertMlpBackward& args, int64_t begin, int64_t count) const {
    const Frame frame(ctx);
    const Tensor act =
        ctx.stack.push("expert activation", {count, args.down_weight.values.shape[2]}, args.gate_up.dtype);
    swiglu_forward(ctx, args.gate_up.slice(begin, count), args.row_weights.slice(begin, count), act);
    add_rows(ctx, args.down_weight, OperandRole::kInput, act, count);
  }

  static constexpr int64_t kRowsMadeAgain = 1024;

  const std::unique_ptr<Recipe> recipe_;
  const RecipeOptions options_;
  Tensor tally_;
};

}  // namespace

std::unique_ptr<Recipe> make_watching_recipe(std::unique_ptr<Recipe> recipe, const RecipeOptions& options) {
  return std::make_unique<WatchingRecipe>(std::move(recipe), options);
}

}  // namespace mixtune
