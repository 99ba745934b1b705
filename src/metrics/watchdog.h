// Watchdog: looks at the steps of a run for what tells that it goes wrong while all of its numbers are finite.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "metrics/metric_sink.h"

namespace mixtune {

// The last kMost of the numbers that were added, in any order.
template <size_t kMost>
class LastNumbers {
 public:
  void add(double number) {
    numbers_[next_] = number;
    next_ = (next_ + 1) % kMost;
    size_ = std::min(size_ + 1, kMost);
  }
  std::span<const double> all() const { return {numbers_.data(), size_}; }

 private:
  std::array<double, kMost> numbers_ = {};
  size_t next_ = 0, size_ = 0;
};

// The means of kSteps successive numbers.
class RunningMean {
 public:
  static constexpr size_t kSteps = 20;

  void add(double number);
  // Of the last kSteps, and the smallest yet; none before there are so many.
  std::optional<double> last() const { return last_; }
  std::optional<double> smallest() const { return smallest_; }

 private:
  LastNumbers<kSteps> numbers_;
  std::optional<double> last_, smallest_;
};

// The rules, also in docs/watching.md. Each but the last is looked at once there were RunningMean::kSteps steps, of
// this process.
//   loss:      lm_loss is over kLossFactor times its smallest mean, of which less than kLeastLoss counts as that.
//   gradient:  grad_norm is over kNormFactor times the median of the kNorms steps before.
//   imbalance: the last mean of expert_imbalance is over kImbalanceFactor times the smallest; on several ranks alone,
//              as on one the host does not get the counts.
//   operands:  of an operand in 8 bits, in a step that looks at them, anything is saturated, or a share over
//              kFlushedShare flushed to 0.
class Watchdog {
 public:
  static constexpr double kLossFactor = 3, kLeastLoss = 0.1, kNormFactor = 10, kImbalanceFactor = 1.5,
                          kFlushedShare = 0.01;
  static constexpr size_t kNorms = 100;
  static constexpr int64_t kDivergedSteps = 5;

  // Of a step that trained on something and whose numbers are finite. Returns what to warn of: what this step began,
  // not what lasts since an earlier one.
  std::vector<std::string> look(const StepRecord& record);

  // The steps in a row, up to the last, whose loss was over its limit.
  int64_t steps_over() const { return steps_over_; }
  bool has_diverged() const { return steps_over_ >= kDivergedSteps; }
  // What lm_loss must not be over; none yet: anything goes.
  std::optional<double> loss_limit() const;

 private:
  std::string look_at_loss(double loss);
  std::string look_at_norm(double norm);
  std::string look_at_imbalance(double imbalance);
  std::string look_at_flushed(const std::vector<OperandLoss>& operands);
  std::string look_at_saturated(const std::vector<OperandLoss>& operands);

  RunningMean loss_, imbalance_;
  LastNumbers<kNorms> norms_;
  int64_t steps_over_ = 0;
  bool norm_is_over_ = false, imbalance_is_over_ = false, flushed_is_over_ = false, saturates_ = false;
};

}  // namespace mixtune
