#include "metrics/watchdog.h"

#include <fmt/format.h>

#include <numeric>

#include "metrics/fields.h"

namespace mixtune {

namespace {

double median(std::span<const double> numbers) {
  std::array<double, Watchdog::kNorms> sorted = {};
  const auto end = std::ranges::copy(numbers, sorted.begin()).out;
  const auto middle = sorted.begin() + std::ssize(numbers) / 2;
  std::nth_element(sorted.begin(), middle, end);
  return *middle;
}

// The operand with the largest of these shares: its place in kOperandFields.
size_t worst(const std::vector<OperandLoss>& operands, double OperandLoss::*share) {
  const auto most = std::ranges::max_element(operands, {}, share);
  return static_cast<size_t>(most - operands.begin());
}

}  // namespace

void RunningMean::add(double number) {
  numbers_.add(number);
  const std::span<const double> all = numbers_.all();
  if (all.size() < kSteps) return;
  last_ = std::accumulate(all.begin(), all.end(), 0.0) / kSteps;
  smallest_ = std::min(*last_, smallest_.value_or(*last_));
}

std::vector<std::string> Watchdog::look(const StepRecord& record) {
  std::vector<std::string> warnings;
  const auto add = [&](std::string warning) {
    if (!warning.empty()) warnings.push_back(std::move(warning));
  };
  add(look_at_loss(record.lm_loss));
  add(look_at_norm(record.grad_norm));
  if (record.parallel != nullptr) add(look_at_imbalance(record.parallel->expert_imbalance));
  if (record.operands != nullptr) {
    add(look_at_saturated(*record.operands));
    add(look_at_flushed(*record.operands));
  }
  return warnings;
}

std::optional<double> Watchdog::loss_limit() const {
  if (!loss_.smallest()) return {};
  return kLossFactor * std::max(*loss_.smallest(), kLeastLoss);
}

std::string Watchdog::look_at_loss(double loss) {
  const std::optional<double> limit = loss_limit();
  loss_.add(loss);
  steps_over_ = limit && loss > *limit ? steps_over_ + 1 : 0;
  if (steps_over_ != 1) return "";
  return fmt::format("lm_loss {:.4g} is over {:.4g}, {} times its smallest mean of {} steps", loss, *limit, kLossFactor,
                     RunningMean::kSteps);
}

std::string Watchdog::look_at_norm(double norm) {
  const bool knows = norms_.all().size() >= RunningMean::kSteps, was_over = norm_is_over_;
  const double usual = knows ? median(norms_.all()) : 0;
  norms_.add(norm);
  norm_is_over_ = usual > 0 && norm > kNormFactor * usual;
  if (!norm_is_over_ || was_over) return "";
  return fmt::format("grad_norm {:.4g} is over {} times {:.4g}, the median of the steps before", norm, kNormFactor,
                     usual);
}

std::string Watchdog::look_at_imbalance(double imbalance) {
  imbalance_.add(imbalance);
  const bool was_over = imbalance_is_over_;
  imbalance_is_over_ = imbalance_.last() && *imbalance_.last() > kImbalanceFactor * *imbalance_.smallest();
  if (!imbalance_is_over_ || was_over) return "";
  return fmt::format("expert_imbalance has a mean of {:.3g} over {} steps, over {} times its smallest, {:.3g}",
                     *imbalance_.last(), RunningMean::kSteps, kImbalanceFactor, *imbalance_.smallest());
}

std::string Watchdog::look_at_flushed(const std::vector<OperandLoss>& operands) {
  const size_t i = worst(operands, &OperandLoss::flushed);
  const bool was_over = flushed_is_over_;
  flushed_is_over_ = operands[i].flushed > kFlushedShare;
  if (!flushed_is_over_ || was_over) return "";
  const auto over = std::ranges::count_if(operands, [](const OperandLoss& o) { return o.flushed > kFlushedShare; });
  return fmt::format(
      "flushed_{} {:.3g} is over {} (of {} operands' shares): values of one scale differ too much for 8 bits; with "
      "fp8_scaling: tensor try block, else precision: mxfp8 or bf16",
      kOperandFields[i].name, operands[i].flushed, kFlushedShare, over);
}

std::string Watchdog::look_at_saturated(const std::vector<OperandLoss>& operands) {
  const size_t i = worst(operands, &OperandLoss::saturated);
  const bool did = saturates_;
  saturates_ = operands[i].saturated > 0;
  if (!saturates_ || did) return "";
  return fmt::format(
      "saturated_{} {:.3g} is over 0: values are infinite or NaN where the loss is still finite; lower learning_rate, "
      "or go on from an earlier checkpoint with precision: bf16",
      kOperandFields[i].name, operands[i].saturated);
}

}  // namespace mixtune
