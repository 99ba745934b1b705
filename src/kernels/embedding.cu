// Token embedding on a GPU: copies of rows, and sums of rows by token id.
#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 128;
constexpr int kAhead = 8;  // rows of dy that a thread has under way

template <class S, int Width>
__global__ void __launch_bounds__(kForwardThreads)
    forward_kernel(const int32_t* __restrict__ ids, const S* __restrict__ table, S* __restrict__ y, int columns) {
  const S* from = table + static_cast<int64_t>(ids[blockIdx.x]) * columns;
  S* to = y + static_cast<int64_t>(blockIdx.x) * columns;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) * Width; i < columns; i += kForwardThreads * Width)
    store(to + i, load<Width>(from + i));
}

template <class S, class D>
struct Backward {
  const int32_t *ids, *begin, *rows;
  const S* dy;
  D* dtable;
  int columns;
  bool accumulate;
};

// blockIdx: x counts ids, y tiles of columns. Each sum has one thread, which adds the rows in their order.
template <class S, class D, int Width>
__global__ void __launch_bounds__(kBackwardThreads, 4) backward_kernel(Backward<S, D> a) {
  const int i = static_cast<int>(blockIdx.y * kBackwardThreads + threadIdx.x) * Width;
  if (i >= a.columns) return;
  const int end = a.begin[blockIdx.x + 1];
  D* out = a.dtable + static_cast<int64_t>(a.ids[blockIdx.x]) * a.columns + i;
  float sum[Width] = {};
  if (a.accumulate) {
    const auto before = load<Width>(out);
#pragma unroll
    for (int k = 0; k < Width; ++k) sum[k] = before[k];
  }
  for (int first = a.begin[blockIdx.x]; first < end; first += kAhead) {
    Pack<S, Width> dy[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      if (first + j < end) dy[j] = load<Width>(a.dy + static_cast<int64_t>(a.rows[first + j]) * a.columns + i);
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      if (first + j < end)
#pragma unroll
        for (int k = 0; k < Width; ++k) sum[k] += dy[j][k];
  }
  Pack<D, Width> result;
#pragma unroll
  for (int k = 0; k < Width; ++k) result.set(k, sum[k]);
  store(out, result);
}

template <class S, class D>
void launch_backward(Ctx& ctx, const EmbeddingBackward& args) {
  const Backward<S, D> a{.ids = elements<int32_t>(args.index.ids),
                         .begin = elements<int32_t>(args.index.begin),
                         .rows = elements<int32_t>(args.index.rows),
                         .dy = elements<S>(args.dy),
                         .dtable = elements<D>(args.dtable),
                         .columns = static_cast<int>(args.dtable.shape[1]),
                         .accumulate = args.accumulate};
  on_width<S>(packs_fit<S>(a.columns, args.dy, args.dtable), [&](auto width) {
    const dim3 blocks(args.index.ids.rows(), ceil_div(a.columns, kBackwardThreads * width));
    backward_kernel<S, D, width()><<<blocks, kBackwardThreads, 0, ctx.gpu->stream()>>>(a);
  });
}

}  // namespace

void embedding_forward(Ctx& ctx, const Tensor& ids, const Tensor& table, const Tensor& y) {
  if (y.elements() == 0) return;
  const auto columns = static_cast<int>(y.shape[1]);
  on_dtype(y.dtype, [&]<class S>(S) {
    on_width<S>(packs_fit<S>(columns, table, y), [&](auto width) {
      forward_kernel<S, width()><<<y.rows(), kForwardThreads, 0, ctx.gpu->stream()>>>(
          elements<int32_t>(ids), elements<S>(table), elements<S>(y), columns);
    });
  });
  check_cuda(cudaGetLastError(), "embedding_forward_kernel");
}

void embedding_backward(Ctx& ctx, const EmbeddingBackward& args) {
  if (!args.accumulate) zero(ctx, args.dtable);
  if (args.index.ids.rows() == 0) return;
  on_dtype(args.dy.dtype, [&]<class S>(S) {
    if (args.dtable.dtype == DType::kF32) return launch_backward<S, float>(ctx, args);
    launch_backward<S, S>(ctx, args);
  });
  check_cuda(cudaGetLastError(), "embedding_backward_kernel");
}

}  // namespace mixtune::cuda
