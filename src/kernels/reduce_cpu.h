// CPU twin of reduce.h.
#pragma once

#include "kernels/reduce.h"

namespace mixtune::cpu {

inline void add_sum(const Tensor& values, const Tensor& total) {
  double sum = 0;
  for (int64_t i = 0; i < values.elements(); ++i) sum += values.as<double>()[i];
  *total.as<double>() += sum;
}

}  // namespace mixtune::cpu
