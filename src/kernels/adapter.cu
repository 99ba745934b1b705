// CUDA half of adapter.h: a thread computes an element of the result.
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
  __device__ int64_t columns() const { return int64_t{modules} * rank; }
};

// expanded[i]: row i / columns of all experts' rows.
template <class S>
__global__ void __launch_bounds__(kThreads)
    expand_kernel(const S* b, Form form, float scale, S* expanded, int64_t all) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= all) return;
  const int64_t row = i / form.columns(), expert = row / form.n, n = row % form.n;
  const int column = static_cast<int>(i % form.columns()), module = column / form.rank;
  int64_t before = 0;
  for (int m = 0; m < module; ++m) before += form.rows[m].count;
  const int64_t within = n - form.rows[module].first;
  const bool is_own = within >= 0 && within < form.rows[module].count;
  const int64_t from = (expert * form.b_rows + before + within) * form.rank + column % form.rank;
  expanded[i] = from_float<S>(is_own ? scale * to_float(b[from]) : 0);
}

// db[i]: row i / rank of all experts' rows of B.
template <class From, class S>
__global__ void __launch_bounds__(kThreads)
    fold_kernel(const From* dexpanded, Form form, float scale, S* db, bool accumulate, int64_t all) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= all) return;
  const int64_t row = i / form.rank, expert = row / form.b_rows;
  int64_t within = row % form.b_rows;
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
  const Form form(args.modules, args.b, args.expanded);
  on_dtype(args.b.dtype, [&]<class S>(S) {
    expand_kernel<<<blocks_of(all), kThreads, 0, ctx.gpu->stream()>>>(
        elements<S>(args.b), form, static_cast<float>(args.scale), elements<S>(args.expanded), all);
  });
  check_cuda(cudaGetLastError(), "expand_kernel");
}

void fold_adapter(Ctx& ctx, const FoldAdapter& args) {
  const int64_t all = args.db.elements();
  if (all == 0) return;
  const Form form(args.modules, args.db, args.dexpanded);
  on_dtype(args.dexpanded.dtype, [&]<class From>(From) {
    on_dtype(args.db.dtype, [&]<class S>(S) {
      fold_kernel<<<blocks_of(all), kThreads, 0, ctx.gpu->stream()>>>(elements<From>(args.dexpanded), form,
                                                                      static_cast<float>(args.scale),
                                                                      elements<S>(args.db), args.accumulate, all);
    });
  });
  check_cuda(cudaGetLastError(), "fold_kernel");
}

}  // namespace mixtune::cuda
