// Products of codes, by coded_gemm.h; and the experts' SwiGLU, which writes the codes that the next products read. Of
// which kind codes are, follows from the rule of their scales.
#include <fmt/format.h>

#include <map>

#include "base/log.h"
#include "kernels/eight_bit/coded_gemm.h"
#include "kernels/eight_bit/coded_swiglu.h"
#include "kernels/swiglu.h"
#include "precision/plain_recipe.h"
#include "tensor/out_of_memory.h"

namespace mixtune {

namespace {

// All rows up to the live ones, as one group.
class DenseGroup {
 public:
  explicit DenseGroup(int64_t live) : count_(static_cast<int32_t>(live)) {}
  DenseGroup(const DenseGroup&) = delete;
  DenseGroup& operator=(const DenseGroup&) = delete;
  RowGroups groups() const { return {&begin_, &count_, 1}; }

 private:
  int32_t begin_ = 0, count_;
};

// What is kept of a weight: its codes in the directions that will be read, made of one version of it.
struct KeptCodes {
  Codes squares, turned;
  int64_t version = -1;
};

class CodedRecipe : public Recipe {
 public:
  explicit CodedRecipe(const RecipeOptions& options)
      : scale_(scale_rule(options)), rounding_(make_rounding_recipe(options)) {}

  void keep(std::span<const Weight> weights, bool training) override {
    const auto take_all = [&](const auto& take) {
      for (const Weight& weight : weights)
        if (fits(weight)) take(weight, WeightRows(weight.values));
    };
    size_t bytes = 0;
    take_all([&](const Weight&, const WeightRows& rows) { bytes += kept_bytes_of(rows, training); });
    if (bytes == 0) return;
    const Device device = weights.front().values.device;
    check_room(device, bytes, training);
    kept_memory_ = std::make_unique<Arena>("weights in 8 bits", device, bytes);
    take_all([&](const Weight& weight, const WeightRows& rows) {
      KeptCodes& kept = kept_[weight.param];
      const auto allocate = [&](CodesForm form) {
        const CodesShape shape = codes_shape(form, of(rows));
        return Codes{kept_memory_->allocate("codes", shape.codes, DType::kF8E4M3),
                     kept_memory_->allocate("scales", {shape.scales}, shape.scale)};
      };
      kept.squares = allocate(CodesForm::kSquares);
      if (training) kept.turned = allocate(CodesForm::kTurned);
    });
  }
  size_t kept_bytes() const override { return kept_memory_ ? kept_memory_->used() : 0; }

  void linear(Ctx& ctx, const Linear& args) const override {
    if (!fits(args.weight)) return rounding_->linear(ctx, args);
    const Frame frame(ctx);
    const DenseGroup all(args.live);
    const Codes x = push_rows(ctx, args.x.shape);
    quantise(ctx, {.x = args.x, .groups = all.groups(), .scale = scale_, .rows = x});
    multiply(ctx, args.weight, {.x = x, .y = args.y, .groups = all.groups(), .accumulate = args.accumulate_y});
  }

  void linear_backward(Ctx& ctx, const LinearBackward& args) const override {
    if (!fits(args.weight)) return rounding_->linear_backward(ctx, args);
    const Frame frame(ctx);
    const DenseGroup all(args.live);
    Quantise dy = {.x = args.dy, .groups = all.groups(), .scale = scale_};
    if (args.dx) dy.rows = push_rows(ctx, args.dy.shape);
    if (args.dweight.tensor) dy.columns = push_columns(ctx, args.dy.shape);
    quantise(ctx, dy);
    if (args.dx)
      multiply(ctx, args.weight,
               {.x = dy.rows,
                .side = WeightSide::kDataGradient,
                .y = args.dx,
                .groups = all.groups(),
                .accumulate = args.accumulate_dx});
    weight_gradient(ctx, args.dweight, dy.columns, args.x, all.groups());
  }

  void expert_mlp(Ctx& ctx, const ExpertMlp& args) const override {
    if (!fits(args.down_weight)) return rounding_->expert_mlp(ctx, args);
    const Frame frame(ctx);
    gate_up(ctx, {.x = args.x, .groups = args.groups, .turned = args.kept_rows}, args.gate_up_weight, args.gate_up);
    const Codes act = push_rows(ctx, {args.x.rows(), args.down_weight.values.shape[2]});
    coded_swiglu_forward(ctx, {.gate_up = args.gate_up,
                               .row_weights = args.row_weights,
                               .groups = args.groups,
                               .scale = scale_,
                               .act_rows = act});
    const Range range(ctx, "down");
    multiply(ctx, args.down_weight, {.x = act, .y = args.y, .groups = args.groups});
  }

  void expert_gate_up(Ctx& ctx, const GateUp& args) const override {
    if (!experts_fit(args.weight.values.shape)) return rounding_->expert_gate_up(ctx, args);
    MT_CHECK(!args.adapter);
    this->gate_up(ctx, {.x = args.x, .groups = args.groups}, args.weight, args.gate_up);
  }

  Codes push_kept_rows(Ctx& ctx, const Shape& rows, const Shape& weight) const override {
    return experts_fit(weight) ? push_turned(ctx, rows, weight[0]) : Codes{};
  }

  GateUpGradient push_gate_up_gradient(Ctx& ctx, const Tensor& gate_up, const Weight& down_weight) const override {
    if (!fits(down_weight)) return rounding_->push_gate_up_gradient(ctx, gate_up, down_weight);
    return {.values = {}, .codes = push_columns(ctx, gate_up.shape)};
  }

  void expert_mlp_backward(Ctx& ctx, const ExpertMlpBackward& args) const override {
    if (!args.dgate_up.codes) return rounding_->expert_mlp_backward(ctx, args);
    const Frame frame(ctx);
    const Codes dgate_up = push_rows(ctx, args.gate_up.shape);
    down_backward(ctx, args, dgate_up);
    const Range range(ctx, "gate-up, data gradient");
    multiply(ctx, args.gate_up_weight,
             {.x = dgate_up, .side = WeightSide::kDataGradient, .y = args.dx, .groups = args.groups});
  }

  void expert_gate_up_weight_gradient(Ctx& ctx, const GateUpWeightGradient& args) const override {
    if (!args.dgate_up.codes) return rounding_->expert_gate_up_weight_gradient(ctx, args);
    const Range range(ctx, "gate-up, weight gradient");
    if (!args.kept_rows) return weight_gradient(ctx, args.dweight, args.dgate_up.codes, args.x, args.groups);
    multiply_gradient(ctx, args.dweight, args.dgate_up.codes, args.kept_rows, args.groups);
  }

 private:
  // Whether the products of a weight [N, K] or [E, N, K] take codes; their rows come in whole blocks anyway.
  static bool fits(const Weight& weight) { return fits(weight.values.shape); }
  static bool fits(const Shape& shape) {
    return shape[-1] % kScaleBlock == 0 && shape[-2] % kScaleBlock == 0 &&
           (shape.rank() == 2 || shape[0] <= kMaxCodedGroups);
  }

  // Whether this gate-up weight fits, and down's with it.
  static bool experts_fit(const Shape& gate_up_weight) {
    return fits(gate_up_weight) && gate_up_weight[1] % (2 * kScaleBlock) == 0;
  }

  CodesOfMatrix of(const WeightRows& rows) const {
    return {.matrix = rows.matrix().shape, .groups = rows.groups().groups, .scale = scale_};
  }
  Codes push_rows(Ctx& ctx, const Shape& matrix) const {
    return push_codes(ctx, CodesForm::kRows, {.matrix = matrix, .scale = scale_});
  }
  Codes push_columns(Ctx& ctx, const Shape& matrix) const {
    return push_codes(ctx, CodesForm::kColumns, {.matrix = matrix, .scale = scale_});
  }
  Codes push_turned(Ctx& ctx, const Shape& matrix, int64_t groups) const {
    return push_codes(ctx, CodesForm::kTurned, {.matrix = matrix, .groups = groups, .scale = scale_});
  }

  size_t kept_bytes_of(const WeightRows& rows, bool training) const {
    return codes_shape(CodesForm::kSquares, of(rows)).bytes() +
           (training ? codes_shape(CodesForm::kTurned, of(rows)).bytes() : 0);
  }

  static void check_room(Device device, size_t bytes, bool training) {
    const size_t available = available_memory(device);
    if (bytes <= available) return;
    const std::string what = fmt::format("the weights' copies in 8 bits need {}, {} are available", format_bytes(bytes),
                                         format_bytes(available));
    if (!training) throw UserError("out of memory", what, "set precision: bf16, or use a GPU with more memory");
    throw OutOfMemory(MemoryOf::kState, what, ExitCode::kUserError);
  }

  // The gate-up product of what `rows` is to quantise, in addition to what it names.
  void gate_up(Ctx& ctx, Quantise rows, const Weight& weight, const Tensor& gate_up) const {
    const Range range(ctx, "gate-up");
    const Frame frame(ctx);
    rows.scale = scale_;
    rows.rows = push_rows(ctx, rows.x.shape);
    quantise(ctx, rows);
    multiply(ctx, weight, {.x = rows.rows, .y = gate_up, .groups = rows.groups});
  }

  // The product with a weight, which is quantised here, or was for an earlier product.
  void multiply(Ctx& ctx, const Weight& weight, CodedGemm product) const {
    const Frame frame(ctx);
    const bool forward = product.side == WeightSide::kForward;
    const auto found = kept_.find(weight.param);
    if (found != kept_.end()) {
      KeptCodes& kept = found->second;
      if (kept.version != weight.version) quantise_weight(ctx, weight, kept);
      kept.version = weight.version;
      product.weight = forward ? kept.squares : kept.turned;
    } else {
      const WeightRows rows(weight.values);
      KeptCodes made;
      if (forward)
        made.squares = push_codes(ctx, CodesForm::kSquares, of(rows));
      else
        made.turned = push_codes(ctx, CodesForm::kTurned, of(rows));
      quantise_weight(ctx, weight, made);
      product.weight = forward ? made.squares : made.turned;
    }
    coded_gemm(ctx, product);
  }

  void quantise_weight(Ctx& ctx, const Weight& weight, const KeptCodes& codes) const {
    const WeightRows rows(weight.values);
    quantise(ctx, {.x = rows.matrix(),
                   .groups = rows.groups(),
                   .scale = scale_,
                   .squares = codes.squares,
                   .turned = codes.turned});
  }

  // dweight = dy^T x or +=, where it is wanted. x is quantised here.
  void weight_gradient(Ctx& ctx, const WeightGradient& dweight, const Codes& dy, const Tensor& x,
                       const RowGroups& groups) const {
    if (!dweight.tensor) return;
    const Frame frame(ctx);
    const Codes turned = push_turned(ctx, x.shape, groups.groups);
    quantise(ctx, {.x = x, .groups = groups, .scale = scale_, .turned = turned});
    multiply_gradient(ctx, dweight, dy, turned, groups);
  }
  static void multiply_gradient(Ctx& ctx, const WeightGradient& dweight, const Codes& dy, const Codes& x,
                                const RowGroups& groups) {
    if (!dweight.tensor) return;
    coded_wgrad(ctx, {.dy = dy, .x = x, .dw = dweight.tensor, .groups = groups, .accumulate = dweight.accumulate});
  }

  // Of expert_mlp_backward all but the gate-up's product: dgate_up, of which args.dgate_up has the columns; the
  // gradients of down's weight and of the row weights.
  void down_backward(Ctx& ctx, const ExpertMlpBackward& args, const Codes& dgate_up) const {
    const Frame frame(ctx);
    const RowGroups& groups = args.groups;
    const Shape activation = {args.dy.rows(), args.down_weight.values.shape[2]};
    const Codes act = push_turned(ctx, activation, groups.groups), dy_columns = push_columns(ctx, args.dy.shape),
                dy_rows = push_rows(ctx, args.dy.shape);
    const Tensor dact = ctx.stack.push("expert activation gradient", activation, args.dy.dtype);
    {
      const Range range(ctx, "down, data gradient");
      quantise(ctx, {.x = args.dy, .groups = groups, .scale = scale_, .rows = dy_rows, .columns = dy_columns});
      multiply(ctx, args.down_weight, {.x = dy_rows, .side = WeightSide::kDataGradient, .y = dact, .groups = groups});
    }
    coded_swiglu_backward(ctx, {.gate_up = args.gate_up,
                                .row_weights = args.row_weights,
                                .dact = dact,
                                .groups = groups,
                                .scale = scale_,
                                .dgate_up_rows = dgate_up,
                                .dgate_up_columns = args.dgate_up.codes,
                                .act_turned = act,
                                .drow_weights = args.drow_weights});
    if (args.leaves_gradient) leave_gradient(ctx, args, dact);
    const Range range(ctx, "down, weight gradient");
    multiply_gradient(ctx, args.ddown_weight, dy_columns, act, groups);
  }

  // The values that were written as codes alone.
  static void leave_gradient(Ctx& ctx, const ExpertMlpBackward& args, const Tensor& dact) {
    const Frame frame(ctx);
    swiglu_backward(ctx, {.gate_up = args.gate_up,
                          .row_weights = args.row_weights,
                          .dact = dact,
                          .dgate_up = args.gate_up,
                          .drow_weights = ctx.stack.push("row weights gradient, again", args.drow_weights.shape,
                                                         args.drow_weights.dtype)});
  }

  const ScaleRule scale_;
  const std::unique_ptr<Recipe> rounding_;
  std::unique_ptr<Arena> kept_memory_;
  mutable std::map<int, KeptCodes> kept_;  // by the weight's number
};

}  // namespace

std::unique_ptr<Recipe> make_coded_recipe(const RecipeOptions& options) {
  return std::make_unique<CodedRecipe>(options);
}

}  // namespace mixtune
