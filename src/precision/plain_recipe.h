// PlainRecipe: products in the dtype of their operands, and where other recipes put theirs.
#pragma once

#include "precision/recipe.h"

namespace mixtune {

class PlainRecipe : public Recipe {
 public:
  void linear(Ctx& ctx, const Linear& args) const override;
  void linear_backward(Ctx& ctx, const LinearBackward& args) const override;
  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override;
  void expert_gate_up(Ctx& ctx, const Tensor& x, const Tensor& gate_up_weight, const RowGroups& groups,
                      const Tensor& gate_up) const override;
  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override;
  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override;

 protected:
  enum class Product { kForward, kDataGradient, kWeightGradient };
  // Which of the two: x or dy; the weight, or in a weight gradient x.
  enum class Side { kLeft, kRight };
  struct Operand {
    Product product;
    Side side;
    Tensor values;
    int64_t live;             // rows that count, of a matrix of tokens
    const RowGroups* groups;  // null: dense; otherwise of the product
  };
  // What the product multiplies in an operand's place: the values themselves, or a tensor that is pushed.
  virtual Tensor read(Ctx& ctx, const Operand& operand) const;

 private:
  // The experts' products, named as parts of a step. Operands are read as `product` reads them.
  void multiply(Ctx& ctx, const char* name, Product product, GroupedGemmArgs args) const;
  void weight_gradient(Ctx& ctx, const char* name, const WeightGradient& dw, GroupedWgradArgs args) const;
};

// Takes one expert after the other, each by `recipe`.
std::unique_ptr<Recipe> make_loop_recipe(std::unique_ptr<Recipe> recipe);
std::unique_ptr<Recipe> make_eight_bit_recipe(EightBitScaling scaling, bool power_of_two_scales);

}  // namespace mixtune
