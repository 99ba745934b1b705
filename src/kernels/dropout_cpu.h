// CPU twin of dropout.h.
#pragma once

#include "kernels/dropout.h"

namespace mixtune::cpu {

template <class S>
void drop_out(const DropOut& args) {
  const int64_t rows = args.x.rows(), columns = args.x.shape[1];
  const uint64_t key = mix_key(args.dropout.key);
  const uint32_t threshold = drop_threshold(args.dropout.share);
  const int64_t* numbers = args.dropout.numbers ? args.dropout.numbers.as<int64_t>() : nullptr;
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const auto first = static_cast<uint64_t>((numbers ? numbers[row] : args.dropout.first + row) * columns);
    const S* x = args.x.as<S>() + row * columns;
    S* y = args.y.as<S>() + row * columns;
    for (int64_t i = 0; i < columns; ++i)
      y[i] = is_dropped(key, first + static_cast<uint64_t>(i), threshold) ? S(0) : x[i];
  }
}

}  // namespace mixtune::cpu
