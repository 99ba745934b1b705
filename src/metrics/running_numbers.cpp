#include "metrics/running_numbers.h"

#include <numeric>

namespace mixtune {

void RunningMean::add(double number) {
  numbers_.add(number);
  const std::span<const double> all = numbers_.all();
  if (all.size() < kSteps) return;
  last_ = std::accumulate(all.begin(), all.end(), 0.0) / kSteps;
  first_ = first_.value_or(*last_);
  smallest_ = std::min(*last_, smallest_.value_or(*last_));
  largest_ = std::max(*last_, largest_.value_or(*last_));
}

double RunningMedian::median() const {
  const std::span<const double> all = numbers_.all();
  if (all.size() < RunningMean::kSteps) return 0;
  std::array<double, kMost> sorted = {};
  const auto end = std::ranges::copy(all, sorted.begin()).out;
  const auto middle = sorted.begin() + std::ssize(all) / 2;
  std::nth_element(sorted.begin(), middle, end);
  return *middle;
}

}  // namespace mixtune
