// Recipe: the precision in which the model's large matrix products run. Callers never ask which recipe it is.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "config/config.h"
#include "kernels/eight_bit/quantise.h"
#include "kernels/gemm/gemm.h"
#include "precision/adapter.h"
#include "tensor/profiler.h"

namespace mixtune {

// An operand of the products of a weight: x; the weight; the gradient of y.
enum class OperandRole { kInput, kWeight, kGradient };
constexpr int64_t kOperandRoles = 3;

// T tokens, R routed rows, E experts, H hidden, F ffn.
class Recipe {
 public:
  virtual ~Recipe() = default;

  // A weight, and what it is known by to recipes that keep something made of it.
  struct Weight {
    Weight() = default;
    Weight(const Tensor& tensor) : values(tensor) {}  // of which nothing is kept
    Weight(const Tensor& tensor, int number, int64_t of_values) : values(tensor), param(number), version(of_values) {}

    Tensor values;
    int param = -1;       // its number in the State
    int64_t version = 0;  // another one where the values may be others
  };

  // Takes memory for what is kept of the weights that products will read, each once for all products of a version; in
  // training for both directions. Throws OutOfMemory, or UserError where not for training.
  virtual void keep(std::span<const Weight> weights, bool training) { (void)weights, (void)training; }
  virtual size_t kept_bytes() const { return 0; }

  // From now on every backward adds to tally [parameters, kOperandRoles, kHealthNumbers] int64 what 8 bits lose of the
  // operands of weights with a number (kernels/eight_bit/operand_health.h): of x and the weight as forward reads them,
  // of the gradient of y as that of x does. Results stay the same. Empty: no more. Without 8 bits nothing is lost.
  virtual void watch(const Tensor& tally) { (void)tally; }

  // y [T, N] = x [T, K] weight^T (or +=, with accumulate_y), weight [N, K]. Rows of y from `live` on are not read.
  struct Linear {
    Tensor x;
    Weight weight;
    Tensor y;
    bool accumulate_y = false;
    int64_t live;
  };
  virtual void linear(Ctx& ctx, const Linear& args) const = 0;

  // dx [T, K] = dy weight (or +=, with accumulate_dx), dweight = or += dy^T x. Rows of dy from `live` on are 0, and
  // those of dx are not read.
  struct LinearBackward {
    Tensor x;
    Weight weight;
    Tensor dy;
    Tensor dx;
    bool accumulate_dx = false;
    WeightGradient dweight;
    int64_t live;
  };
  virtual void linear_backward(Ctx& ctx, const LinearBackward& args) const = 0;

  // The expert MLP of the rows of each group: gate_up [R, 2F] = x gate_up_weight_e^T (saved for backward),
  // y [R, H] = (silu(gate) * up * row_weights) down_weight_e^T; with the parts of adapters.
  struct ExpertMlp {
    Tensor x;                            // [R, H]
    Weight gate_up_weight, down_weight;  // [E, 2F, H], [E, H, F]
    Tensor row_weights;                  // [R]
    RowGroups groups;
    Tensor gate_up, y;
    Codes kept_rows = {};  // of push_kept_rows, written here
    Adapter gate_up_adapter = {}, down_adapter = {};
  };
  virtual void expert_mlp(Ctx& ctx, const ExpertMlp& args) const = 0;

  // Pushes what the gate-up weight's gradient may read in place of rows of this shape [R, H], with fewer bytes. Empty:
  // it reads the rows. `weight`: the gate-up weight's shape.
  virtual Codes push_kept_rows(Ctx& ctx, const Shape& rows, const Shape& weight) const {
    return (void)ctx, (void)rows, (void)weight, Codes{};
  }

  // Computes gate_up alone, again, where forward did not keep it.
  struct GateUp {
    Tensor x;
    Weight weight;
    RowGroups groups;
    Tensor gate_up;
    Adapter adapter = {};
  };
  virtual void expert_gate_up(Ctx& ctx, const GateUp& args) const = 0;

  // The gradient of gate_up as the weight's gradient reads it: values [R, 2F], or codes of their transpose.
  struct GateUpGradient {
    Tensor values;
    Codes codes;
  };
  // Pushes the memory for it, beside gate_up [R, 2F] or in its place: gate_up is not read after expert_mlp_backward.
  virtual GateUpGradient push_gate_up_gradient(Ctx& ctx, const Tensor& gate_up, const Weight& down_weight) const = 0;

  // From dy [R, H], all gradients but those of gate_up_weight and its adapter, of which B's may be written here too.
  struct ExpertMlpBackward {
    Weight gate_up_weight, down_weight;
    Tensor row_weights;
    RowGroups groups;
    Tensor gate_up, dy;
    GateUpGradient dgate_up;
    Tensor dx, drow_weights;  // [R, H], [R]
    WeightGradient ddown_weight;
    bool leaves_gradient = false;  // in gate_up: its gradient's values, for who looks at them
    Adapter gate_up_adapter = {}, down_adapter = {};
  };
  virtual void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const = 0;

  // The gradients of gate_up_weight and its adapter stand apart, so that dx may travel meanwhile.
  struct GateUpWeightGradient {
    Tensor x;         // [R, H]
    Codes kept_rows;  // in its place, where they are there
    GateUpGradient dgate_up;
    RowGroups groups;
    WeightGradient dweight;
    Adapter adapter = {};
  };
  virtual void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const = 0;
};

// What runs in 8 bits: the products of the layers, forward and backward, of attention's projections and of the experts.
// Each operand is quantised from its values in the model's dtype, once for each product that reads it; sums are fp32.
// Not the router, nor the head (plain_linear). The scales of products with K summed, N and T not:
//
//               forward: x, weight     data gradient: dy, weight   weight gradient: dy, x
//   kBlock      1 x 128, 128 x 128     1 x 128, 128 x 128          128 tokens x 1, 128 tokens x 128     E4M3
//   kMx         1 x 32, 1 x 32         1 x 32, 32 x 1              32 tokens x 1, 32 tokens x 1         E4M3
//   kTensor     one for each matrix, and for the rows of each expert; E4M3, gradients E5M2
//
// Blocks of tokens begin at a batch's first row, and at each expert's first.
enum class EightBitScaling { kBlock, kMx, kTensor };

struct RecipeOptions {
  ExpertsImplementation experts = ExpertsImplementation::kGrouped;  // loop: one after the other; the same numbers
  std::optional<EightBitScaling> eight_bit = {};                    // none: in the dtype of the operands
  bool power_of_two_scales = true;                                  // kMx has no others
  bool multiplies_codes = false;  // where the device has products of such codes (coded_gemm.h); not for kTensor
};

// By which rule the scales of options.eight_bit are taken.
ScaleRule scale_rule(const RecipeOptions& options);

std::unique_ptr<Recipe> make_recipe(const RecipeOptions& options = {});

// Recipe's linear and linear_backward in the dtype of the operands, whatever the recipe. An operand and the result may
// be of different dtypes as gemm has it.
void plain_linear(Ctx& ctx, const Recipe::Linear& args);
void plain_linear_backward(Ctx& ctx, const Recipe::LinearBackward& args);

}  // namespace mixtune
