#include "metrics/watchdog.h"

#include <fmt/format.h>

#include <algorithm>

#include "metrics/fields.h"

namespace mixtune {

namespace {

// The operand with the largest of these shares: its place in kOperandFields.
size_t worst(const std::vector<OperandLoss>& operands, double OperandLoss::*share) {
  const auto most = std::ranges::max_element(operands, {}, share);
  return static_cast<size_t>(most - operands.begin());
}

}  // namespace

std::vector<std::string> Watchdog::look(const StepRecord& record) {
  std::vector<std::string> warnings;
  const auto add = [&](std::string warning) {
    if (!warning.empty()) warnings.push_back(std::move(warning));
  };
  add(look_at_loss(record.lm_loss));
  add(look_at_gain(record.step));
  add(look_at_norm(record.grad_norm));
  for (std::string& warning : routers_.look(record)) add(std::move(warning));
  if (record.parallel != nullptr) add(look_at_exchange(record.parallel->ranks, record.milliseconds));
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
  return fmt::format(
      "lm_loss {:.4g} is over {:.4g}, {} times its smallest mean of {} steps; lower learning_rate, "
      "and look at the data of these steps",
      loss, *limit, kLossFactor, RunningMean::kSteps);
}

std::string Watchdog::look_at_gain(int64_t step) {
  if (++looked_ == 1) from_first_ = step <= 1;
  if (looked_ != kFirstSteps || !from_first_ || *loss_.last() < *loss_.first()) return "";
  return fmt::format(
      "lm_loss has a mean of {:.4g} over the last {} of its first {} steps, no less than {:.4g} over the first: it "
      "does not learn; look at what mixtune inspect shows of the data (template, targets), and at learning_rate",
      *loss_.last(), RunningMean::kSteps, kFirstSteps, *loss_.first());
}

std::string Watchdog::look_at_norm(double norm) {
  const double usual = norms_.median();
  norms_.add(norm);
  if (!norm_onset_.begins(usual > 0 && norm > kNormFactor * usual)) return "";
  return fmt::format(
      "grad_norm {:.4g} is over {} times {:.4g}, the median of the steps before; if it lasts, lower learning_rate or "
      "max_grad_norm",
      norm, kNormFactor, usual);
}

std::string Watchdog::look_at_exchange(const std::vector<RankRecord>& ranks, double milliseconds) {
  if (ranks.empty() || !(milliseconds > 0)) return "";
  double sum = 0;
  for (const RankRecord& rank : ranks) sum += rank.exchange_exposed_milliseconds;
  exchange_.add(sum / static_cast<double>(ranks.size()) / milliseconds);
  if (!exchange_onset_.begins(exchange_.last() && *exchange_.last() > kExchangeShare)) return "";
  return fmt::format(
      "the all-to-all takes {:.0f}% of a step beside which ranks do nothing else, the mean of {} steps, over {:.0f}%: "
      "look at expert_imbalance and the network (docs/parallel.md), or lower expert_model_parallel_size",
      100 * *exchange_.last(), RunningMean::kSteps, 100 * kExchangeShare);
}

std::string Watchdog::look_at_flushed(const std::vector<OperandLoss>& operands) {
  const size_t i = worst(operands, &OperandLoss::flushed);
  if (!flushed_onset_.begins(operands[i].flushed > kFlushedShare)) return "";
  const auto over = std::ranges::count_if(operands, [](const OperandLoss& o) { return o.flushed > kFlushedShare; });
  return fmt::format(
      "flushed_{} {:.3g} is over {} (of {} operands' shares): values of one scale differ too much for 8 bits; with "
      "fp8_scaling: tensor try block, else precision: mxfp8 or bf16",
      kOperandFields[i].name, operands[i].flushed, kFlushedShare, over);
}

std::string Watchdog::look_at_saturated(const std::vector<OperandLoss>& operands) {
  const size_t i = worst(operands, &OperandLoss::saturated);
  if (!saturated_onset_.begins(operands[i].saturated > 0)) return "";
  return fmt::format(
      "saturated_{} {:.3g} is over 0: values are infinite or NaN where the loss is still finite; lower learning_rate, "
      "or go on from an earlier checkpoint with precision: bf16",
      kOperandFields[i].name, operands[i].saturated);
}

}  // namespace mixtune
