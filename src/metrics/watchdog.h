// Watchdog: looks at the steps of a run for what tells that it goes wrong while all of its numbers are finite.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"
#include "metrics/router_watch.h"
#include "metrics/running_numbers.h"

namespace mixtune {

// The rules, also in docs/watching.md; RouterWatch has those of the routers. The first three are looked at once there
// were RunningMean::kSteps steps, of this process.
//   loss:     lm_loss is over kLossFactor times its smallest mean, of which less than kLeastLoss counts as that.
//   gradient: grad_norm is over kNormFactor times its median before.
//   exchange: the last mean of the part of a step's time that ranks only waited for the all-to-all is over
//             kExchangeShare.
//   no gain:  after kFirstSteps steps from the run's first on, lm_loss has a mean that is no less than its first one.
//   operands: of an operand in 8 bits, in a step that looks at them, anything is saturated, or a share over
//             kFlushedShare flushed to 0.
class Watchdog {
 public:
  static constexpr double kLossFactor = 3, kLeastLoss = 0.1, kNormFactor = 10, kExchangeShare = 0.5,
                          kFlushedShare = 0.01;
  static constexpr int64_t kDivergedSteps = 5, kFirstSteps = 200;

  // Of a step that trained on something and whose numbers are finite. Returns what to warn of, and what to do: what
  // this step began, not what lasts since an earlier one.
  std::vector<std::string> look(const StepRecord& record);

  // The steps in a row, up to the last, whose loss was over its limit.
  int64_t steps_over() const { return steps_over_; }
  bool has_diverged() const { return steps_over_ >= kDivergedSteps; }
  // What lm_loss must not be over; none yet: anything goes.
  std::optional<double> loss_limit() const;

 private:
  std::string look_at_loss(double loss);
  std::string look_at_gain(int64_t step);
  std::string look_at_norm(double norm);
  std::string look_at_exchange(const std::vector<RankRecord>& ranks, double milliseconds);
  std::string look_at_flushed(const std::vector<OperandLoss>& operands);
  std::string look_at_saturated(const std::vector<OperandLoss>& operands);

  RunningMean loss_, exchange_;
  RunningMedian norms_;
  RouterWatch routers_;
  int64_t steps_over_ = 0, looked_ = 0;
  bool from_first_ = false;  // whether the first step that was looked at is the run's
  Onset norm_onset_, exchange_onset_, flushed_onset_, saturated_onset_;
};

}  // namespace mixtune
