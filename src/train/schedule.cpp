#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mixtune {

int64_t warmup_steps(const OptimizerSettings& settings, int64_t total_steps) {
  if (settings.warmup_steps > 0) return settings.warmup_steps;
  return static_cast<int64_t>(std::ceil(settings.warmup_ratio * static_cast<double>(total_steps)));
}

double learning_rate(const OptimizerSettings& settings, int64_t step, int64_t total_steps) {
  if (settings.lr_scheduler_type == Schedule::kConstant) return settings.learning_rate;
  const int64_t warmup = warmup_steps(settings, total_steps);
  if (step < warmup) return settings.learning_rate * static_cast<double>(step) / static_cast<double>(warmup);
  const double left = static_cast<double>(std::max<int64_t>(0, total_steps - step));
  const double decay_steps = static_cast<double>(std::max<int64_t>(1, total_steps - warmup));
  switch (settings.lr_scheduler_type) {
    case Schedule::kLinear:
      return settings.learning_rate * left / decay_steps;
    case Schedule::kCosine:
      return settings.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * (1 - left / decay_steps)));
    default:
      return settings.learning_rate;
  }
}

}  // namespace mixtune
