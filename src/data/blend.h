// Blend: the order in which a blend of data sets gives its samples. It follows Megatron-Core's greedy rule
// (helpers.cpp, build_blending_indices and build_exhaustive_blending_indices) to the last sample.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mixtune {

struct BlendSample {
  int64_t data_set;
  int64_t sample;  // in its data set, counted from 0
};

// Sample i is from the data set d with the largest weight[d] * max(i, 1) - (samples taken from d), the first of equals.
// So after any number of samples each data set has given its share to within a sample or two. Memory, and time per
// sample, grow with the number of data sets.
class Blend {
 public:
  // An endless blend. Weights are any positive numbers; only their ratios matter. blend_sizes says how many samples a
  // data set must give. Throws UserError (`where`) for a weight that is not positive or above 1e100.
  static Blend of_weights(std::span<const double> weights, std::string_view where);
  // An endless blend in proportion to the sizes, all above 0, as Megatron draws where no weights are given.
  static Blend in_proportion(std::span<const int64_t> sizes);
  // A blend of exactly sizes[d] >= 0 samples of each data set d.
  static Blend of_sizes(std::span<const int64_t> sizes);

  bool ended() const { return left_ == 0; }
  BlendSample next();  // not ended()

 private:
  std::vector<double> weights_;
  std::vector<int64_t> taken_;
  std::vector<int64_t> sizes_;  // empty: no end
  int64_t index_ = 0;
  int64_t left_ = -1;
};

// How many samples Megatron builds of each data set for the first `samples` of a blend of these weights, with half a
// percent to spare. Its order of a data set's samples depends on how many it builds.
std::vector<int64_t> blend_sizes(std::span<const double> weights, int64_t samples);

}  // namespace mixtune
