// PlainRecipe: products in the dtype of their operands, and where other recipes put theirs.
#pragma once

#include "kernels/moe/adapted_swiglu.h"
#include "precision/operand_bits.h"

namespace mixtune {

class PlainRecipe : public Recipe {
 public:
  void linear(Ctx& ctx, const Linear& args) const override;
  void linear_backward(Ctx& ctx, const LinearBackward& args) const override;
  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override;
  void expert_gate_up(Ctx& ctx, const GateUp& args) const override;
  GateUpGradient push_gate_up_gradient(Ctx& ctx, const Tensor& gate_up, const Weight& down_weight) const override;
  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override;
  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override;

 protected:
  using Kind = ProductKind;
  struct Product {
    Kind kind;
    Tensor left, right;  // x or dy; the weight, or x
    Tensor result;
    int64_t live;                       // rows of tokens that count, the others being 0 in dy
    const RowGroups* groups = nullptr;  // null: dense
    bool accumulate = false;            // into the result
  };
  virtual void multiply(Ctx& ctx, const Product& product) const;

 private:
  // The experts' SwiGLU backward from dact [R, F], which lacks the part of `pair`. Leaves the activations there, if
  // anything after it reads them.
  void swiglu_backward(Ctx& ctx, const ExpertMlpBackward& args, const DownPair& pair, const Tensor& dact) const;
  // dweight = or +=, where it is wanted.
  void weight_gradient(Ctx& ctx, const WeightGradient& dw, Product product) const;
};

// Takes one expert after the other, each by `recipe`.
std::unique_ptr<Recipe> make_loop_recipe(std::unique_ptr<Recipe> recipe);
// options.eight_bit is there. Operands are rounded to 8 bits and multiplied as what they then are: the definition,
// which every device computes.
std::unique_ptr<Recipe> make_rounding_recipe(const RecipeOptions& options);
// The same but for the order of sums, for kBlock and kMx: multiplies codes where all sizes are multiples of
// kScaleBlock, otherwise rounds too.
std::unique_ptr<Recipe> make_coded_recipe(const RecipeOptions& options);

// Does what `recipe` does, which options.eight_bit are of, and tallies its operands where that is asked for.
std::unique_ptr<Recipe> make_watching_recipe(std::unique_ptr<Recipe> recipe, const RecipeOptions& options);

}  // namespace mixtune
