// CPU twins of embedding.h.
#pragma once

#include <algorithm>

#include "kernels/embedding.h"

namespace mixtune::cpu {

template <class S>
void embedding_forward(const Tensor& ids, const Tensor& table, const Tensor& y) {
  const int64_t h = table.shape[1];
#pragma omp parallel for
  for (int64_t t = 0; t < y.rows(); ++t) std::copy_n(table.as<S>() + ids.as<int32_t>()[t] * h, h, y.as<S>() + t * h);
}

// Tasks are ranges of columns, so that each sum has one owner and one order.
template <class S>
void embedding_backward(const Tensor& ids, const Tensor& dy, const Tensor& dtable, bool accumulate) {
  constexpr int64_t kColumns = 64;
  const int64_t h = dtable.shape[1];
  if (!accumulate) {
#pragma omp parallel for
    for (int64_t v = 0; v < dtable.rows(); ++v) std::fill_n(dtable.as<S>() + v * h, h, S(0));
  }
#pragma omp parallel for
  for (int64_t begin = 0; begin < h; begin += kColumns) {
    const int64_t end = std::min(h, begin + kColumns);
    for (int64_t t = 0; t < dy.rows(); ++t) {
      S* out = dtable.as<S>() + ids.as<int32_t>()[t] * h;
      const S* in = dy.as<S>() + t * h;
      for (int64_t i = begin; i < end; ++i) out[i] += in[i];
    }
  }
}

}  // namespace mixtune::cpu
