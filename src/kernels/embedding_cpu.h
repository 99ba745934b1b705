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

// A task has a range of columns, so that each sum has one owner and one order.
template <class S>
void embedding_backward(const EmbeddingBackward& args) {
  constexpr int64_t kColumns = 64;
  const int64_t h = args.dtable.shape[1];
  const int32_t *ids = args.index.ids.as<int32_t>(), *first = args.index.begin.as<int32_t>();
  const int32_t* rows = args.index.rows.as<int32_t>();
  if (!args.accumulate) {
#pragma omp parallel for
    for (int64_t v = 0; v < args.dtable.rows(); ++v) std::fill_n(args.dtable.as<S>() + v * h, h, S(0));
  }
#pragma omp parallel for
  for (int64_t begin = 0; begin < h; begin += kColumns) {
    const int64_t end = std::min(h, begin + kColumns);
    for (int64_t u = 0; u < args.index.ids.rows(); ++u) {
      S* out = args.dtable.as<S>() + ids[u] * h;
      for (int64_t j = first[u]; j < first[u + 1]; ++j) {
        const S* in = args.dy.as<S>() + rows[j] * h;
        for (int64_t i = begin; i < end; ++i) out[i] += in[i];
      }
    }
  }
}

}  // namespace mixtune::cpu
