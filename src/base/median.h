// median: the middle of numbers.
#pragma once

#include <algorithm>
#include <vector>

namespace mixtune {

// Of at least one number; of an even count the upper of the two in the middle.
inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace mixtune
