#include "data/numpy_rules.h"

#include <algorithm>
#include <bit>

namespace mixtune {

namespace {

// Adds as numpy's DOUBLE_pairwise_sum.
double pairwise_sum(std::span<const double> values) {
  const size_t n = values.size();
  if (n < 8) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum;
  }
  if (n > 128) {
    const size_t half = n / 2 - n / 2 % 8;
    return pairwise_sum(values.first(half)) + pairwise_sum(values.subspan(half));
  }
  double r[8];
  std::ranges::copy(values.first(8), r);
  size_t i = 8;
  for (; i < n - n % 8; i += 8)
    for (size_t j = 0; j < 8; ++j) r[j] += values[i + j];
  double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
  for (; i < n; ++i) sum += values[i];
  return sum;
}

}  // namespace

std::vector<double> numpy_normalize(std::span<const double> weights) {
  const double sum = pairwise_sum(weights);
  MT_CHECK(sum > 0);
  std::vector<double> normalized(weights.begin(), weights.end());
  for (double& weight : normalized) weight /= sum;
  return normalized;
}

uint32_t NumpyRandomState::up_to(uint32_t max) {
  const auto mask = static_cast<uint32_t>((uint64_t{1} << std::bit_width(max)) - 1);
  for (;;)
    if (const uint32_t value = static_cast<uint32_t>(generator_()) & mask; value <= max) return value;
}

}  // namespace mixtune
