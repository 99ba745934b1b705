// How unevenly experts are loaded.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>

namespace mixtune {

// counts [E]: what each expert of a layer got. The most of them divided by their mean: 1 is balance; NaN where no
// expert got anything.
template <class Count>
double expert_imbalance(std::span<const Count> counts) {
  const double mean = std::accumulate(counts.begin(), counts.end(), 0.0) / static_cast<double>(counts.size());
  return std::ranges::max(counts) / mean;
}

}  // namespace mixtune
