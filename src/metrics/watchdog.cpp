#include "metrics/watchdog.h"

#include <fmt/format.h>

#include <numeric>

namespace mixtune {

namespace {

double median(std::span<const double> numbers) {
  std::array<double, Watchdog::kNorms> sorted = {};
  const auto end = std::ranges::copy(numbers, sorted.begin()).out;
  const auto middle = sorted.begin() + std::ssize(numbers) / 2;
  std::nth_element(sorted.begin(), middle, end);
  return *middle;
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

}  // namespace mixtune
