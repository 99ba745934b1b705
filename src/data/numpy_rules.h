// The parts of numpy that Megatron-Core uses, bit for bit.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mixtune {

// weights / numpy.sum(weights) (megatron.core.datasets.utils.normalize). The sum of the weights is above 0.
std::vector<double> numpy_normalize(std::span<const double> weights);

// numpy.random.RandomState(seed), as far as shuffle() needs it.
class NumpyRandomState {
 public:
  explicit NumpyRandomState(uint32_t seed) : generator_(seed) {}

  // Shuffles as numpy does an array of one dimension, of fewer than 2^32 elements.
  template <class Value>
  void shuffle(std::span<Value> values) {
    MT_CHECK(values.size() <= UINT32_MAX);
    for (size_t i = values.size(); i-- > 1;) std::swap(values[i], values[up_to(static_cast<uint32_t>(i))]);
  }

 private:
  // A number in [0, max]: 32 bits, cut to as many as max has, drawn until they are no more than it.
  uint32_t up_to(uint32_t max);

  std::mt19937 generator_;
};

}  // namespace mixtune
