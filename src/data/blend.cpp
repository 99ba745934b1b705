// Compiled without contraction to fused multiply-adds: an error rounded once instead of twice can win where Megatron's
// loses.
#include "data/blend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "data/numpy_rules.h"

namespace mixtune {

namespace {

constexpr double kMaxShare = 1e100;  // sums stay finite
constexpr double kSurplus = 0.005;   // Megatron's mid_level_dataset_surplus

}  // namespace

Blend Blend::of_weights(std::span<const double> weights, std::string_view where) {
  for (const double weight : weights)
    if (!(weight > 0 && weight < kMaxShare))
      throw UserError(where, fmt::format("a weight is {}", weight),
                      "give a positive number, or leave the data set out");
  Blend blend;
  // Megatron's builder normalises, and its BlendedDataset once more.
  blend.weights_ = numpy_normalize(numpy_normalize(weights));
  blend.taken_.resize(weights.size());
  return blend;
}

Blend Blend::in_proportion(std::span<const int64_t> sizes) {
  MT_CHECK(std::ranges::all_of(sizes, [](int64_t size) { return size > 0; }));
  Blend blend;
  blend.weights_ = numpy_normalize(std::vector<double>(sizes.begin(), sizes.end()));
  blend.taken_.resize(sizes.size());
  return blend;
}

Blend Blend::of_sizes(std::span<const int64_t> sizes) {
  MT_CHECK(std::ranges::all_of(sizes, [](int64_t size) { return size >= 0; }));
  Blend blend;
  blend.left_ = std::reduce(sizes.begin(), sizes.end());
  for (const int64_t size : sizes)
    blend.weights_.push_back(static_cast<double>(size) / static_cast<double>(blend.left_));
  blend.taken_.resize(sizes.size());
  blend.sizes_.assign(sizes.begin(), sizes.end());
  return blend;
}

BlendSample Blend::next() {
  MT_CHECK(!ended() && !weights_.empty());
  const double index = std::max(static_cast<double>(index_), 1.0);
  size_t best = 0;
  double largest = std::numeric_limits<double>::lowest();
  for (size_t d = 0; d < weights_.size(); ++d) {
    if (!sizes_.empty() && taken_[d] == sizes_[d]) continue;
    const double error = weights_[d] * index - static_cast<double>(taken_[d]);
    if (error > largest) {
      best = d;
      largest = error;
    }
  }
  ++index_;
  if (!sizes_.empty()) --left_;
  return {static_cast<int64_t>(best), taken_[best]++};
}

std::vector<int64_t> blend_sizes(std::span<const double> weights, int64_t samples) {
  std::vector<int64_t> sizes;
  for (const double weight : numpy_normalize(weights)) {
    const double share = std::ceil(static_cast<double>(samples) * weight);
    sizes.push_back(static_cast<int64_t>(std::ceil(share * (1 + kSurplus))));
  }
  return sizes;
}

}  // namespace mixtune
