// EarlyStopping: whether a run's evaluations still become better, as transformers' EarlyStoppingCallback counts.
#pragma once

#include <span>
#include <string>

#include "metrics/metric_sink.h"
#include "run/manifest.h"

namespace mixtune {

// The metrics by which evaluations are compared, of all of which the smaller is better; those that are finite. Records
// of several sets have other names each: "eval_chat_loss".
Evaluation metrics_of(std::span<const EvalRecord> records);

class EarlyStopping {
 public:
  struct Options {
    std::string metric;
    int64_t patience = 0;  // 0: counts alone
    double threshold = 0;
  };
  // `before`: of the checkpoint that the run goes on from; of another metric it counts for nothing.
  EarlyStopping(const Options& options, const Improvement& before);

  // One that is better than the best by more than the threshold, or the first, is an improvement. One whose metric is
  // not finite is none.
  void add(const Evaluation& evaluation);

  // Whether so many evaluations in a row were none.
  bool has_ended() const { return options_.patience > 0 && improvement_.evaluations_since >= options_.patience; }
  const Improvement& improvement() const { return improvement_; }
  // "3 evaluations without improvement on eval_loss 2.5"
  std::string str() const;

 private:
  Options options_;
  Improvement improvement_;
};

}  // namespace mixtune
