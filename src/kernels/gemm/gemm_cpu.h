// CPU twins of gemm.h, and the serial product that other CPU kernels build on.
#pragma once

#include <dnnl.h>

#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/parallel_error.h"
#include "tensor/out_of_memory.h"

namespace mixtune::cpu {

// One product in strided row-major memory: C [m, n] = op(A) op(B) (+ C).
template <class S>
struct Product {
  int64_t m, n, k;
  const S* a;
  int64_t lda;
  bool trans_a;
  const S* b;
  int64_t ldb;
  bool trans_b;
  S* c;
  int64_t ldc;
  bool accumulate;
};

template <class S>
void clear(const Product<S>& p) {
  for (int64_t i = 0; i < p.m; ++i) std::fill_n(p.c + i * p.ldc, p.n, S(0));
}

// The oracle's product: plain loops.
inline void multiply_serial(const Product<double>& p) {
  if (!p.accumulate) clear(p);
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t l = 0; l < p.k; ++l) {
      const double a = p.trans_a ? p.a[l * p.lda + i] : p.a[i * p.lda + l];
      for (int64_t j = 0; j < p.n; ++j) p.c[i * p.ldc + j] += a * (p.trans_b ? p.b[j * p.ldb + l] : p.b[l * p.ldb + j]);
    }
}

// oneDNN's product; on one thread where the caller is in a parallel region. It takes scratch memory of its own for
// packed operands and gives it back: the one thing that a step allocates.
inline void multiply_serial(const Product<float>& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!p.accumulate) clear(p);
    return;
  }
  const dnnl_status_t status = dnnl_sgemm(p.trans_a ? 'T' : 'N', p.trans_b ? 'T' : 'N', p.m, p.n, p.k, 1.0f, p.a, p.lda,
                                          p.b, p.ldb, p.accumulate ? 1.0f : 0.0f, p.c, p.ldc);
  if (status == dnnl_out_of_memory)
    throw OutOfMemory(MemoryOf::kActivations, "oneDNN's matrix product got no scratch memory");
  MT_CHECK(status == dnnl_success);
}

// A task computes one tile of C: K is never split, so a result does not depend on the number of threads.
constexpr int64_t kTileRows = 256;
constexpr int64_t kTileCols = 512;

inline int64_t tile_count(int64_t m, int64_t n) {
  return ((m + kTileRows - 1) / kTileRows) * ((n + kTileCols - 1) / kTileCols);
}

template <class S>
Product<S> tile_of(const Product<S>& p, int64_t tile) {
  const int64_t tiles_n = (p.n + kTileCols - 1) / kTileCols;
  const int64_t i = tile / tiles_n * kTileRows, j = tile % tiles_n * kTileCols;
  Product<S> t = p;
  t.m = std::min(kTileRows, p.m - i);
  t.n = std::min(kTileCols, p.n - j);
  t.a += p.trans_a ? i : i * p.lda;
  t.b += p.trans_b ? j * p.ldb : j;
  t.c += i * p.ldc + j;
  return t;
}

// Computes the products product(0) ... product(count - 1), tile by tile over all threads.
template <class ProductOf>
void multiply_all(int64_t count, const ProductOf& product) {
  int64_t tiles = 0;
  for (int64_t g = 0; g < count; ++g) tiles += tile_count(product(g).m, product(g).n);
  ParallelError error;
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t t = 0; t < tiles; ++t) {
    int64_t g = 0, local = t;
    for (int64_t here; local >= (here = tile_count(product(g).m, product(g).n)); ++g) local -= here;
    error.run([&] { multiply_serial(tile_of(product(g), local)); });
  }
  error.rethrow();
}

// Zeroes the rows of y [rows, n] that are in no group.
template <class S>
void clear_gaps(const RowGroups& groups, int64_t n, int64_t rows, S* y) {
  int64_t row = 0;
  for (int64_t e = 0; e < groups.groups; ++e) {
    std::fill(y + row * n, y + groups.begin[e] * n, S(0));
    row = groups.begin[e] + groups.count[e];
  }
  std::fill(y + row * n, y + rows * n, S(0));
}

}  // namespace mixtune::cpu
