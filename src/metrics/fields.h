// The numbers of records, a row each: what is written of them, told between ranks and documented loops over the rows.
#pragma once

#include <cstdint>
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

inline constexpr Field<StepRecord> kStepFields[] = {
    {"step", &StepRecord::step, "where the run stands, from 1"},
    {"total_steps", &StepRecord::total_steps, "the steps of the run"},
    {"epoch", &StepRecord::epoch, "passes over the data, this step included"},
    {"loss", &StepRecord::loss, "`lm_loss + router_aux_loss_coef * aux_loss`"},
    {"lm_loss", &StepRecord::lm_loss,
     "mean loss of the step's target tokens, over the whole global batch; [weighted](data.md#weights) where they have "
     "weights"},
    {"aux_loss", &StepRecord::aux_loss, "the router's load-balancing loss, unscaled"},
    {"grad_norm", &StepRecord::grad_norm, "of all gradients together, before clipping"},
    {"learning_rate", &StepRecord::learning_rate, "the one that the step used"},
    {"tokens", &StepRecord::tokens, "tokens that went through the model"},
    {"target_tokens", &StepRecord::target_tokens, "those with a loss"},
    {"recomputed_layers", &StepRecord::recomputed_layers,
     "layers, over all micro-batches, of which not all that backward needs fit: the gate-up output was computed again, "
     "or rows of other ranks' tokens were sent again"},
    {"skipped_steps", &StepRecord::skipped_steps,
     "the steps of the run so far that changed nothing, as their loss or gradient norm was not finite "
     "(`skip_nonfinite_steps`)"},
    {"tokens_per_second", &StepRecord::tokens_per_second, "speed of the step"},
    {"milliseconds", &StepRecord::milliseconds, "time of the step"},
};

// In metrics.jsonl, `rank_` goes before the names.
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
};

}  // namespace mixtune
