#pragma once

#include "tensor/tensor.h"

namespace mixtune {

// The tensor a weight gradient goes to; empty: it is not wanted.
struct WeightGradient {
  Tensor tensor;
  bool accumulate = false;
};

}  // namespace mixtune
