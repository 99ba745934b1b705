// Evaluator: the loss of a data set under the current weights.
#pragma once

#include <memory>
#include <string>

#include "config/config.h"
#include "data/loader.h"
#include "metrics/metric_sink.h"
#include "model/instance.h"
#include "train/scalars.h"

namespace mixtune {

class Evaluator {
 public:
  // `instance` outlives the evaluator. A batch has `rows_per_batch` of `rows`, which end.
  Evaluator(Instance& instance, std::string name, std::unique_ptr<RowSource> rows, int64_t rows_per_batch);

  // The weighted mean loss over all targets. `step` goes into the record, and the name.
  EvalRecord evaluate(int64_t step);

  int64_t max_batch_tokens() const { return loader_.max_batch_tokens(); }

 private:
  Instance& instance_;
  std::string name_;
  Loader loader_;
  Saved saved_;
  Scalars token_sum_;
};

// Evaluates the model of config.model, whose config.json says `shape`, on config.data.validation_file. All ranks call
// this, each takes its share of the rows, and all return the same.
EvalRecord evaluate(const Config& config, const MixtralConfig& shape, const Ranks& ranks = single_rank());

}  // namespace mixtune
