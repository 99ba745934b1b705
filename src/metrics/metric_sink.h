// Metrics: the typed records that a run reports, and the sinks that take them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mixtune {

// One rank's step: kRankFields (metrics/fields.h) says what each number is. Its times are its own, in which waiting for
// other ranks is included.
struct RankRecord {
  int64_t tokens = 0;
  int64_t exchange_bytes = 0;
  double exchange_milliseconds = 0;
  double exchange_exposed_milliseconds = 0;
  double gradient_sum_milliseconds = 0;
  double weight_gather_milliseconds = 0;
  double collective_milliseconds = 0;
  double memory_gib = 0;
};

// The part of a record that only a step of several ranks has.
struct ParallelRecord {
  std::vector<RankRecord> ranks;
};

// What the routers of a step did, over all ranks. A token counts for each expert it goes to. kLayerFields says what the
// lists of layers are.
struct RouterRecord {
  std::vector<int64_t> expert_tokens;                     // [E], over all layers
  std::vector<std::vector<int64_t>> layer_expert_tokens;  // [L][E]
  std::vector<double> layer_imbalance, layer_share;       // [L]: as expert_imbalance and expert_share
  std::vector<double> layer_entropy, layer_logit_scale;   // [L]
  std::vector<double> layer_bias_range;                   // [L]; empty where experts have no bias
};

// Steps whose records have lists of layers: in all of them they would be most of the file.
constexpr bool shows_layers(int64_t step) {
  return step == 1 || step % 10 == 0;
}

// An operand of the layers' products, as 8 bits leave it, over all ranks: kLossFields says what each share is.
struct OperandLoss {
  double flushed = 0, saturated = 0;  // shares, over all layers, of the values that are not 0
  std::vector<double> amax;           // [L]: the largest finite magnitude
};

// kStepFields (metrics/fields.h) says what each number is.
struct StepRecord {
  int64_t step = 0;
  int64_t total_steps = 0;
  double epoch = 0;
  double loss = 0;
  double lm_loss = 0;
  double aux_loss = 0;
  double z_loss = 0;
  double grad_norm = 0;
  double router_grad_norm = 0;
  double expert_imbalance = 0;
  double expert_share = 0;
  double router_entropy = 0;
  double router_logit_scale = 0;
  double learning_rate = 0;
  int64_t tokens = 0;
  int64_t target_tokens = 0;
  double drop_rate = 0;
  double dropped_tokens_rate = 0;
  int64_t recomputed_layers = 0;
  int64_t skipped_steps = 0;
  double memory_gib = 0;
  double tokens_per_second = 0;
  double model_tflops = 0;
  double mfu = 0;
  double milliseconds = 0;
  std::string plans = {};  // in a run's first step on a GPU: the digest of its matrix products' algorithms
  const ParallelRecord* parallel = nullptr;  // with several ranks; valid until the next step
  const RouterRecord* routers = nullptr;     // where the step trained on something; valid until the next step
  // In 8 bits, of the steps that look at them: in the order of kOperandFields; valid until the next step.
  const std::vector<OperandLoss>* operands = nullptr;
};

// kEvalFields says what each number is.
struct EvalRecord {
  std::string name = {};  // of the set that was evaluated, where sets have names
  int64_t step = 0;       // the last step before the evaluation; 0: before training
  double eval_loss = 0;
  double eval_perplexity = 0;
  int64_t eval_tokens = 0;  // tokens that are targets
  double milliseconds = 0;
};

// Takes records. One that a sink cannot deliver is lost alone, and the run goes on.
class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual void step(const StepRecord& record) = 0;
  virtual void evaluation(const EvalRecord& record) = 0;
  // Called once, after the last record.
  virtual void finish() = 0;
};

}  // namespace mixtune
