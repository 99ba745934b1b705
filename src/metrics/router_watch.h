// RouterWatch: looks at the routers of a run's steps for what tells that they go wrong.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"
#include "metrics/running_numbers.h"

namespace mixtune {

// The rules, also in docs/watching.md. A number that a record does not have, or that is 0, is not looked at.
//   collapse:  for kCollapsedSteps steps in a row one expert of a layer gets more than its even share of the layer's
//              tokens, and kCollapse of what is left to all of them. From the first step on.
//   imbalance: the last mean of expert_imbalance is over kImbalanceFactor times the smallest.
//   entropy:   the last mean of router_entropy is under kEntropyFactor times the largest.
//   logits:    the last mean of router_logit_scale is over kLogitFactor times its smallest, of which less than
//              kLeastLogits counts as that.
//   drops:     the last mean of drop_rate is over kDropRate.
//   gradient:  router_grad_norm is over kNormFactor times its median before; or, for kVanishedSteps in a row, under
//              kVanished of it.
class RouterWatch {
 public:
  static constexpr double kCollapse = 0.9, kImbalanceFactor = 1.5, kEntropyFactor = 0.5, kLogitFactor = 3,
                          kLeastLogits = 1, kDropRate = 0.05, kNormFactor = 10, kVanished = 0.01;
  static constexpr int64_t kCollapsedSteps = 3, kVanishedSteps = 3;

  // What this step began. Allocates nothing where that is nothing.
  std::vector<std::string> look(const StepRecord& record);

 private:
  std::string look_at_collapse(double share, double imbalance);
  std::string look_at_imbalance(double imbalance);
  std::string look_at_entropy(double entropy);
  std::string look_at_logits(double scale);
  std::string look_at_drops(double rate);
  std::string look_at_norm(double norm);

  RunningMean imbalance_, entropy_, logits_, drops_;
  RunningMedian norms_;
  int64_t collapsed_ = 0, vanished_ = 0;  // steps in a row
  Onset imbalance_onset_, entropy_onset_, logits_onset_, drops_onset_, norm_onset_;
};

}  // namespace mixtune
