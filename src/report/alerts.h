// Alerts: what of a run's records is not as it should be.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"
#include "metrics/watchdog.h"

namespace mixtune {

struct Alert {
  int64_t first, last;  // steps
  std::string text;
};

// Looks at the records of a run as if it had never been resumed: by the watchdog's rules, and for numbers that are not
// finite.
class Alerts {
 public:
  static constexpr size_t kMost = 100;

  void look(const StepRecord& record);
  void look(const EvalRecord& record);

  const std::vector<Alert>& all() const { return all_; }  // the first kMost
  int64_t left_out() const { return left_out_; }

 private:
  void add(int64_t step, std::string text);

  Watchdog watchdog_;
  std::vector<Alert> all_;
  int64_t left_out_ = 0;
};

}  // namespace mixtune
