// fill_values: writes to weights what the host computes.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "kernels/cast.h"
#include "state/param_layout.h"

namespace mixtune {

template <class S, class Value>
void fill_values_as(Ctx& ctx, const HfBlock& block, int64_t first, const Tensor& part, const Value& value) {
  constexpr int64_t kAtOnce = 1 << 20;
  std::vector<S> values(static_cast<size_t>(std::min(kAtOnce, part.rows())));
  for (int64_t begin = 0; begin < part.rows(); begin += kAtOnce) {
    const int64_t count = std::min(kAtOnce, part.rows() - begin);
#pragma omp parallel for
    for (int64_t i = 0; i < count; ++i) {
      const double exact = value(block.box.place(first + begin + i));
      if constexpr (std::is_same_v<S, BF16>)
        values[i] = to_bf16(static_cast<float>(exact));
      else
        values[i] = static_cast<S>(exact);
    }
    copy(ctx, host_tensor(values.data(), {count}), part.slice(begin, count));
    wait(ctx);
  }
}

// part [n], fp32, bf16 or (on the CPU) fp64: the block's elements from its index `first` on. Each becomes value(its
// place in the Hugging Face tensor), a double, rounded once to fp32 and then to bf16 where it is that.
template <class Value>
void fill_values(Ctx& ctx, const HfBlock& block, int64_t first, const Tensor& part, const Value& value) {
  if (part.dtype == DType::kF64) return fill_values_as<double>(ctx, block, first, part, value);
  if (part.dtype == DType::kBF16) return fill_values_as<BF16>(ctx, block, first, part, value);
  fill_values_as<float>(ctx, block, first, part, value);
}

}  // namespace mixtune
