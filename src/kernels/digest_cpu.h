// CPU twin of digest.h.
#pragma once

#include <cstring>

#include "kernels/digest.h"
#include "kernels/digest_math.h"

namespace mixtune::cpu {

inline uint64_t digest(const Tensor& tensor) {
  const auto* bytes = static_cast<const uint8_t*>(tensor.data);
  const auto size = static_cast<int64_t>(tensor.bytes());
  uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum)
  for (int64_t i = 0; i < size / 4; ++i) {
    uint32_t word = 0;
    std::memcpy(&word, bytes + 4 * i, 4);
    sum += mixed_word(word, i);
  }
  if (size % 4 == 0) return sum;
  uint32_t last = 0;
  std::memcpy(&last, bytes + size / 4 * 4, static_cast<size_t>(size % 4));
  return sum + mixed_word(last, size / 4);
}

inline void digest(std::span<const Tensor> tensors, const Tensor& digests) {
  for (size_t t = 0; t < tensors.size(); ++t) digests.as<int64_t>()[t] = static_cast<int64_t>(digest(tensors[t]));
}

}  // namespace mixtune::cpu
