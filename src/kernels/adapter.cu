// CUDA half of adapter.h: a thread computes an element of the result, or a vector of it.
#include <cstdint>
#include <type_traits>

#include "kernels/adapter.h"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;

// The modules, and the sizes of the matrices of one expert.
struct Form {
  AdaptedRows rows[AdaptedModules::kMost];
  int modules, rank;
  int64_t n, b_rows;

  Form(const AdaptedModules& of, const Tensor& b, const Tensor& expanded)
      : modules(of.size), rank(static_cast<int>(b.shape[-1])), n(expanded.shape[-2]), b_rows(b.shape[-2]) {
    for (int i = 0; i < modules; ++i) rows[i] = of.rows[i];
  }
  __device__ int columns() const { return modules * rank; }
};

// One element, or a vector.
template <class S>
__device__ void load_values(const S* from, float (&values)[1]) {
  values[0] = to_float(*from);
}
template <class S>
__device__ void load_values(const S* from, float (&values)[kVector<S>]) {
  load_vector(from, values);
}
template <class S>
__device__ void store_values(S* to, const float (&values)[1]) {
  *to = from_float<S>(values[0]);
}
template <class S>
__device__ void store_values(S* to, const float (&values)[kVector<S>]) {
  store_vector(to, values);
}

// Elements [V i, V (i + 1)) of expanded, of one row and one module.
template <int V, class S>
__global__ void __launch_bounds__(kThreads) expand_kernel(const S* b, Form form, float scale, S* expanded, int all) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= all) return;
  const int columns = form.columns(), row = i / (columns / V), column = i % (columns / V) * V;
  const int expert = row / static_cast<int>(form.n), module = column / form.rank;
  int64_t within = row % form.n - form.rows[module].first;
  float values[V] = {};
  if (within >= 0 && within < form.rows[module].count) {
    for (int m = 0; m < module; ++m) within += form.rows[m].count;
    load_values(b + (expert * form.b_rows + within) * form.rank + column % form.rank, values);
#pragma unroll
    for (int j = 0; j < V; ++j) values[j] *= scale;
  }
  store_values(expanded + int64_t{i} * V, values);
}

// db[i]: row i / rank of all experts' rows of B.
template <class From, class S>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(const From* dexpanded, Form form, float scale, S* db, bool accumulate, int all) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= all) return;
  const int row = i / form.rank, expert = row / static_cast<int>(form.b_rows);
  int64_t within = row % static_cast<int>(form.b_rows);
  int module = 0;
  for (; within >= form.rows[module].count; ++module) within -= form.rows[module].count;
  const int64_t n = expert * form.n + form.rows[module].first + within;
  const float value = scale * to_float(dexpanded[n * form.columns() + module * form.rank + i % form.rank]);
  db[i] = from_float<S>(accumulate ? to_float(db[i]) + value : value);
}

unsigned blocks_of(int64_t elements) {
  return static_cast<unsigned>(ceil_div(elements, kThreads));
}

}  // namespace

void expand_adapter(Ctx& ctx, const ExpandAdapter& args) {
  const int64_t all = args.expanded.elements();
  if (all == 0) return;
  MT_CHECK(all <= INT32_MAX);
  const Form form(args.modules, args.b, args.expanded);
  const auto run = [&]<int V, class S>(std::integral_constant<int, V>, S) {
    expand_kernel<V><<<blocks_of(all / V), kThreads, 0, ctx.gpu->stream()>>>(
        elements<S>(args.b), form, static_cast<float>(args.scale), elements<S>(args.expanded),
        static_cast<int>(all / V));
  };
  on_dtype(args.b.dtype, [&]<class S>(S of) {
    if (form.rank % kVector<S> == 0)
      run(std::integral_constant<int, kVector<S>>(), of);
    else
      run(std::integral_constant<int, 1>(), of);
  });
  check_cuda(cudaGetLastError(), "expand_kernel");
}

void fold_adapter(Ctx& ctx, const FoldAdapter& args) {
  const int64_t all = args.db.elements();
  if (all == 0) return;
  MT_CHECK(all <= INT32_MAX);
  const Form form(args.modules, args.db, args.dexpanded);
  on_dtype(args.dexpanded.dtype, [&]<class From>(From) {
    on_dtype(args.db.dtype, [&]<class S>(S) {
      fold_kernel<<<blocks_of(all), kThreads, 0, ctx.gpu->stream()>>>(
          elements<From>(args.dexpanded), form, static_cast<float>(args.scale), elements<S>(args.db), args.accumulate,
          static_cast<int>(all));
    });
  });
  check_cuda(cudaGetLastError(), "fold_kernel");
}

}  // namespace mixtune::cuda
