// What tests read out of a batch.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace mixtune {

// All elements, which are int32.
inline std::span<const int32_t> values(const Tensor& tensor) {
  return {tensor.as<int32_t>(), static_cast<size_t>(tensor.elements())};
}

}  // namespace mixtune
