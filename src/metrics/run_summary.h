// RunSummary: what a run's records come to, in a few lines.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"

namespace mixtune {

class RunSummary {
 public:
  void add(const StepRecord& record);
  void add(const EvalRecord& record);

  // Of the steps, of the experts' load where ranks shared it, and of the evaluations; none where there was no step.
  std::vector<std::string> lines() const;

 private:
  std::string steps_line() const;
  std::string evaluations_line() const;

  int64_t first_step_ = 0, last_step_ = 0, tokens_ = 0;
  double evaluation_milliseconds_ = 0;
  std::vector<double> milliseconds_, imbalances_;  // of each step
  std::optional<EvalRecord> before_, best_, last_;
};

}  // namespace mixtune
