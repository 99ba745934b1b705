// Recipe: the precision in which the model's large matrix products run. Callers never ask which recipe it is.
#pragma once

#include <memory>

#include "config/config.h"
#include "kernels/gemm/gemm.h"
#include "tensor/profiler.h"

namespace mixtune {

// The tensor a weight gradient goes to; empty: it is not wanted.
struct WeightGradient {
  Tensor tensor;
  bool accumulate = false;
};

// T tokens, R routed rows, E experts, H hidden, F ffn.
class Recipe {
 public:
  virtual ~Recipe() = default;

  // y [T, N] = x [T, K] weight^T, weight [N, K].
  virtual void linear(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& y) const = 0;

  // dx [T, K] = dy weight (or +=, with accumulate_dx), dweight = or += dy^T x.
  struct LinearBackward {
    Tensor x, weight, dy;
    Tensor dx;
    bool accumulate_dx = false;
    WeightGradient dweight;
  };
  virtual void linear_backward(Ctx& ctx, const LinearBackward& args) const = 0;

  // The expert MLP of the rows of each group: gate_up [R, 2F] = x gate_up_weight_e^T (saved for backward),
  // y [R, H] = (silu(gate) * up * row_weights) down_weight_e^T.
  struct ExpertMlp {
    Tensor x, gate_up_weight, down_weight, row_weights;  // [R, H], [E, 2F, H], [E, H, F], [R]
    RowGroups groups;
    Tensor gate_up, y;
  };
  virtual void expert_mlp(Ctx& ctx, const ExpertMlp& args) const = 0;

  // Computes gate_up alone, again, where forward did not keep it.
  virtual void expert_gate_up(Ctx& ctx, const Tensor& x, const Tensor& gate_up_weight, const RowGroups& groups,
                              const Tensor& gate_up) const = 0;

  // From dy [R, H], all gradients but that of gate_up_weight. gate_up becomes its own gradient.
  struct ExpertMlpBackward {
    Tensor x, gate_up_weight, down_weight, row_weights;
    RowGroups groups;
    Tensor gate_up, dy;
    Tensor dx, drow_weights;  // [R, H], [R]
    WeightGradient ddown_weight;
  };
  virtual void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const = 0;

  // The gradient of gate_up_weight stands apart, so that dx may travel meanwhile.
  struct GateUpWeightGradient {
    Tensor x, dgate_up;  // [R, H], [R, 2F]
    RowGroups groups;
    WeightGradient dweight;
  };
  virtual void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const = 0;
};

// A recipe that computes in the dtype of its operands. kLoop takes one expert after the other, kGrouped takes them
// together.
std::unique_ptr<Recipe> make_plain_recipe(ExpertsImplementation experts = ExpertsImplementation::kGrouped);

}  // namespace mixtune
