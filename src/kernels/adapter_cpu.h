// CPU twin of adapter.h.
#pragma once

#include "kernels/adapter.h"

namespace mixtune::cpu {

// Which module has row n of the weight, or -1, and which row of all B that is.
struct AdaptedRow {
  int module;
  int64_t row;
};
inline AdaptedRow adapted_row(const AdaptedModules& modules, int64_t n) {
  int64_t before = 0;
  for (int i = 0; i < modules.size; ++i) {
    const AdaptedRows& rows = modules.rows[i];
    if (n >= rows.first && n < rows.first + rows.count) return {i, before + n - rows.first};
    before += rows.count;
  }
  return {-1, 0};
}

template <class S>
void expand_adapter(const ExpandAdapter& args) {
  const int64_t rank = args.b.shape[-1], rows = args.b.shape[-2];
  const int64_t n = args.expanded.shape[-2], columns = args.expanded.shape[-1];
  const int64_t all = args.expanded.elements() / columns;  // rows of all experts
  const auto scale = static_cast<S>(args.scale);
#pragma omp parallel for
  for (int64_t i = 0; i < all; ++i) {
    S* to = args.expanded.as<S>() + i * columns;
    const AdaptedRow from = adapted_row(args.modules, i % n);
    for (int64_t c = 0; c < columns; ++c) to[c] = 0;
    if (from.module < 0) continue;
    const S* b = args.b.as<S>() + (i / n * rows + from.row) * rank;
    for (int64_t j = 0; j < rank; ++j) to[from.module * rank + j] = scale * b[j];
  }
}

template <class S>
void fold_adapter(const FoldAdapter& args) {
  const int64_t rank = args.db.shape[-1], rows = args.db.shape[-2];
  const int64_t n = args.dexpanded.shape[-2], columns = args.dexpanded.shape[-1];
  const int64_t all = args.dexpanded.elements() / columns;
  const auto scale = static_cast<S>(args.scale);
#pragma omp parallel for
  for (int64_t i = 0; i < all; ++i) {
    const AdaptedRow to = adapted_row(args.modules, i % n);
    if (to.module < 0) continue;
    const S* from = args.dexpanded.as<S>() + i * columns + to.module * rank;
    S* db = args.db.as<S>() + (i / n * rows + to.row) * rank;
    for (int64_t j = 0; j < rank; ++j) db[j] = (args.accumulate ? db[j] : S(0)) + scale * from[j];
  }
}

}  // namespace mixtune::cpu
