// RunSummary: what a run's records come to, in a few lines.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"

namespace mixtune {

// What the run's device has, which numbers are of.
struct DeviceScale {
  double memory_gib = 0;  // all of what StepRecord::memory_gib is of; 0: not told
  std::string peak = {};  // what StepRecord::mfu is of: "989 TFLOP/s, bf16 dense, H200"
};

class RunSummary {
 public:
  void add(const StepRecord& record);
  void add(const EvalRecord& record);

  // Of the steps, their speed, memory, the experts' load and drops, and the evaluations; none where there was no step.
  std::vector<std::string> lines(const DeviceScale& scale = {}) const;

 private:
  std::string steps_line() const;
  std::string speed_line(const DeviceScale& scale) const;
  std::string memory_line(const DeviceScale& scale) const;

  // Of one set.
  struct Evaluations {
    std::optional<EvalRecord> before = {}, best = {}, last = {};
    std::string line() const;
  };

  int64_t first_step_ = 0, last_step_ = 0, tokens_ = 0;
  double evaluation_milliseconds_ = 0, most_memory_gib_ = 0;
  double dropped_ = 0, most_dropped_ = 0;                          // drop_rate, times tokens and at most
  std::vector<double> milliseconds_, tflops_, mfus_, imbalances_;  // of each step that has them
  std::map<std::string, Evaluations> evaluations_;                 // by the set's name
};

}  // namespace mixtune
