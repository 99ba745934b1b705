// RunSummary: what a run's records come to, in a few lines.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"

namespace mixtune {

class RunSummary {
 public:
  void add(const StepRecord& record);
  void add(const EvalRecord& record);

  // Of the steps, of the experts' load, and of the evaluations; none where there was no step.
  std::vector<std::string> lines() const;

 private:
  std::string steps_line() const;

  // Of one set.
  struct Evaluations {
    std::optional<EvalRecord> before = {}, best = {}, last = {};
    std::string line() const;
  };

  int64_t first_step_ = 0, last_step_ = 0, tokens_ = 0;
  double evaluation_milliseconds_ = 0;
  std::vector<double> milliseconds_, imbalances_;   // of each step
  std::map<std::string, Evaluations> evaluations_;  // by the set's name
};

}  // namespace mixtune
