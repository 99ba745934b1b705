// The numbers of records, a row each: what is written of them, told between ranks and documented loops over the rows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "metrics/metric_sink.h"

namespace mixtune {

template <class Record>
struct Field {
  const char* name;
  std::variant<int64_t Record::*, double Record::*> member;
  const char* meaning;  // as docs/cli.md has it

  // use(record.*member), of the number's own type.
  template <class Use>
  void of(const Record& record, const Use& use) const {
    std::visit([&](auto number) { use(record.*number); }, member);
  }
  // For a rank to tell it to others; exact up to 2^53.
  double get(const Record& record) const {
    return std::visit([&](auto number) { return static_cast<double>(record.*number); }, member);
  }
  void set(Record& record, double value) const {
    std::visit([&](auto number) { record.*number = static_cast<std::decay_t<decltype(record.*number)>>(value); },
               member);
  }
};

// Of a step or an evaluation.
template <class Record>
struct ScalarField : Field<Record> {
  // What TensorBoard shows it as, and its unit there in that of the field: where Megatron-LM has the same number, this
  // is its name and unit. "": it is not shown.
  const char* tag = "";
  double tag_factor = 1;
};

inline constexpr ScalarField<StepRecord> kStepFields[] = {
    {{"step", &StepRecord::step, "where the run stands, from 1"}},
    {{"total_steps", &StepRecord::total_steps, "the steps of the run"}},
    {{"epoch", &StepRecord::epoch, "passes over the data, this step included"}, "epoch"},
    {{"loss", &StepRecord::loss, "`lm_loss` and the router's losses, each times its coefficient"}, "loss"},
    {{"lm_loss", &StepRecord::lm_loss,
      "mean loss of the step's target tokens, over the whole global batch; [weighted](data.md#weights) where they have "
      "weights"},
     "lm loss"},
    {{"aux_loss", &StepRecord::aux_loss, "the router's load-balancing loss, unscaled; of several their sum"},
     "aux_loss"},
    {{"z_loss", &StepRecord::z_loss, "the router's z-loss, unscaled, of all layers; 0 where it is off"}, "z_loss"},
    {{"grad_norm", &StepRecord::grad_norm, "of all gradients together, before clipping"}, "grad-norm"},
    {{"router_grad_norm", &StepRecord::router_grad_norm,
      "of the gradients of all routers' weights together, before clipping; 0 where they are frozen"},
     "router_grad_norm"},
    {{"expert_imbalance", &StepRecord::expert_imbalance,
      "the most tokens that an expert got, divided by the mean, in the layer where this is largest; 1 is balance"},
     "expert_imbalance"},
    {{"expert_share", &StepRecord::expert_share,
      "the part of a layer's tokens that went to one expert, of the layer and expert where it is largest; balance is "
      "experts of a token / experts"},
     "expert_share"},
    {{"router_entropy", &StepRecord::router_entropy,
      "entropy of the router's probabilities for all experts, the mean over tokens and layers, divided by that of "
      "even ones: 1 is even, 0 certain"},
     "router_entropy"},
    {{"router_logit_scale", &StepRecord::router_logit_scale,
      "root mean square of the router's logits, in the layer where it is largest"},
     "router_logit_scale"},
    {{"learning_rate", &StepRecord::learning_rate, "the one that the step used"}, "learning-rate"},
    {{"tokens", &StepRecord::tokens, "tokens that went through the model"}, "tokens"},
    {{"target_tokens", &StepRecord::target_tokens, "those with a loss"}, "target_tokens"},
    {{"drop_rate", &StepRecord::drop_rate,
      "the share of all pairs of a token and an expert that were dropped, as they were beyond the expert's "
      "[capacity](router.md#capacity); 0 without one"},
     "drop_rate"},
    {{"dropped_tokens_rate", &StepRecord::dropped_tokens_rate,
      "the share of tokens, over all layers, that lost all their experts so"},
     "dropped_tokens_rate"},
    {{"recomputed_layers", &StepRecord::recomputed_layers,
      "layers, over all micro-batches, of which not all that backward needs fit: the gate-up output was computed "
      "again, or rows of other ranks' tokens were sent again"},
     "recomputed_layers"},
    {{"skipped_steps", &StepRecord::skipped_steps,
      "the steps of the run so far that changed nothing, as their loss or gradient norm was not finite "
      "(`skip_nonfinite_steps`)"},
     "skipped_steps"},
    {{"memory_gib", &StepRecord::memory_gib,
      "GiB in use at the end of the step: of the GPU's memory, whoever uses it; on a CPU of the machine's, by the "
      "process; with several ranks of the one that has most"},
     "memory_gib"},
    {{"tokens_per_second", &StepRecord::tokens_per_second, "speed of the step"}, "tokens_per_second"},
    {{"model_tflops", &StepRecord::model_tflops,
      "speed of the step in TFLOP/s of each GPU, or CPU process: the operations that the model's mathematics asks for "
      "([watching.md](watching.md#tflops-and-mfu) says which)"},
     "throughput"},
    {{"mfu", &StepRecord::mfu,
      "`model_tflops` as a share of what the GPU's vendor says that it reaches at most; 0 where that is not known, as "
      "on a CPU"},
     "mfu"},
    {{"milliseconds", &StepRecord::milliseconds, "time of the step"}, "iteration-time", 1e-3},
};

inline constexpr ScalarField<EvalRecord> kEvalFields[] = {
    {{"step", &EvalRecord::step, "the step after which it was made"}},
    {{"eval_loss", &EvalRecord::eval_loss, "mean loss of the target tokens, as `lm_loss`"}, "lm loss validation"},
    {{"eval_perplexity", &EvalRecord::eval_perplexity, "e to the power of `eval_loss`"}, "lm loss validation ppl"},
    {{"eval_tokens", &EvalRecord::eval_tokens, "tokens with a loss"}, "eval_tokens"},
    {{"milliseconds", &EvalRecord::milliseconds, "time of the evaluation"}, "eval_milliseconds"},
};

// What the number is called of that record: of a set with a name, say chat, "eval_loss" is "eval_chat_loss".
inline std::string name_of(const Field<EvalRecord>& field, const EvalRecord& record) {
  constexpr std::string_view kPrefix = "eval_";
  const std::string_view name = field.name;
  if (record.name.empty() || !name.starts_with(kPrefix)) return std::string(name);
  return std::string(kPrefix) + record.name + "_" + std::string(name.substr(kPrefix.size()));
}
// And its tag: "lm loss validation/chat".
inline std::string tag_of(const ScalarField<EvalRecord>& field, const EvalRecord& record) {
  return record.name.empty() ? field.tag : std::string(field.tag) + "/" + record.name;
}

// In metrics.jsonl and TensorBoard, `rank_` goes before the names.
struct RankField : Field<RankRecord> {
  // What `mixtune bench step` calls it, in JSON and in its table; null: it does not show it.
  const char *bench_name = nullptr, *bench_label = nullptr;
};

inline constexpr RankField kRankFields[] = {
    {{"tokens", &RankRecord::tokens, "each rank's part of `tokens`"}},
    {{"exchange_bytes", &RankRecord::exchange_bytes,
      "bytes of tokens, their gradients and routing weights that the rank sent to the experts of other ranks and back"},
     "exchange_bytes",
     "all-to-all, sent by a rank"},
    {{"exchange_milliseconds", &RankRecord::exchange_milliseconds,
      "time of this exchange (the all-to-all), over all layers and micro-batches, forward and backward"},
     "exchange_milliseconds",
     "all-to-all"},
    {{"exchange_exposed_milliseconds", &RankRecord::exchange_exposed_milliseconds,
      "the part of it in which the rank did nothing else (docs/parallel.md); on CPUs all of it"},
     "exchange_exposed_milliseconds",
     "all-to-all, not hidden"},
    {{"gradient_sum_milliseconds", &RankRecord::gradient_sum_milliseconds,
      "time of adding up the ranks' gradients in which the rank did nothing else"},
     "gradient_sum_exposed_milliseconds",
     "sum of gradients, not hidden"},
    {{"weight_gather_milliseconds", &RankRecord::weight_gather_milliseconds,
      "such time of gathering the weights that other ranks updated; 0 with `zero_stage: 0`"},
     "weight_gather_exposed_milliseconds",
     "weights of others, not hidden"},
    {{"collective_milliseconds", &RankRecord::collective_milliseconds,
      "such time of all operations with other ranks together"},
     "collectives_exposed_milliseconds",
     "all collectives, not hidden"},
    {{"memory_gib", &RankRecord::memory_gib, "each rank's `memory_gib`"}},
};

// Of each layer, in steps that shows_layers() has: lists in the order of the layers; an empty one is not written.
struct LayerField {
  const char* name;
  std::vector<double> RouterRecord::*numbers;
  const char* meaning;
};

inline constexpr LayerField kLayerFields[] = {
    {"layer_router_entropy", &RouterRecord::layer_entropy, "`router_entropy` of each layer"},
    {"layer_router_logit_scale", &RouterRecord::layer_logit_scale, "`router_logit_scale` of each layer"},
    {"layer_expert_bias_range", &RouterRecord::layer_bias_range,
     "the largest minus the smallest [bias](router.md#expert-bias) of each layer's experts in the step; where they "
     "have "
     "one"},
};

// The operands of the layers' products, in the order of (product, OperandRole of precision/recipe.h).
struct OperandField {
  const char *name, *meaning;
};

inline constexpr OperandField kOperandFields[] = {
    {"qkv_input", "the normed hidden states that query, key and value are made of"},
    {"qkv_weight", "`q_proj`, `k_proj` and `v_proj`"},
    {"qkv_gradient", "the gradient of query, key and value"},
    {"attention_output_input", "what attention gives"},
    {"attention_output_weight", "`o_proj`"},
    {"attention_output_gradient", "the gradient of the attention block's output"},
    {"gate_up_input", "the normed hidden states, as rows of the experts they go to"},
    {"gate_up_weight", "`w1` and `w3` of all experts"},
    {"gate_up_gradient", "the gradient of the two's results"},
    {"down_input", "the experts' activations: SwiGLU times the routing weight"},
    {"down_weight", "`w2` of all experts"},
    {"down_gradient", "the gradient of the experts' outputs"},
};

// A share, before the name of its operand: `flushed_qkv_input`.
inline constexpr Field<OperandLoss> kLossFields[] = {
    {"flushed", &OperandLoss::flushed,
     "the share of the operand's values, of those that are not 0, that 8 bits make 0"},
    {"saturated", &OperandLoss::saturated,
     "the share that no code stands for: beyond the format's largest value after scaling, infinite or NaN"},
};
inline constexpr OperandField kAmaxField = {"amax", "the largest finite magnitude in each layer: a list"};

// Calls share(name, number) and list(name, numbers) for all that is recorded of operands.
template <class Share, class List>
void for_each_number(const std::vector<OperandLoss>& operands, const Share& share, const List& list) {
  for (size_t i = 0; i < operands.size(); ++i) {
    const std::string operand = std::string("_") + kOperandFields[i].name;
    for (const Field<OperandLoss>& field : kLossFields) share(field.name + operand, field.get(operands[i]));
    list(kAmaxField.name + operand, operands[i].amax);
  }
}

}  // namespace mixtune
