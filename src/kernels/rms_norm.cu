// RMSNorm on a GPU. A row is held in the registers of a block, and memory is passed over once; rows that do not fit, or
// do not come in packs, are read again instead (the kernels named `any`).
#include <algorithm>

#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kElements = 16;     // in each thread, of a row
constexpr int kAnyThreads = 256;  // of the kernels for any row

// Forward and recompute read r as it was rounded to S, so that they give the same bits.
__device__ float norm(float weight, float r, float rstd) {
  return weight * (r * rstd);
}

template <class S>
struct Forward {
  const S *x, *delta, *weight;  // delta: null where there is none
  float eps;
  S *r, *y;  // r may be x or delta
  float* rstd;
  int columns;
};

template <int Threads>
__device__ float row_rstd(float squares, float eps, int columns) {
  return 1 / sqrtf(block_sum<Threads>(squares) / static_cast<float>(columns) + eps);
}

template <class S, int Threads>
__global__ void __launch_bounds__(Threads) forward_kernel(Forward<S> a) {
  constexpr int kWidth = kVector<S>, kPacks = kElements / kWidth;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.columns;
  Pack<S, kWidth> r[kPacks], delta[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
    if (i >= a.columns) break;
    r[p] = load<kWidth>(a.x + start + i);
    if (a.delta) delta[p] = load<kWidth>(a.delta + start + i);
  }
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
    if (i >= a.columns) break;
    if (a.delta) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) r[p].set(k, r[p][k] + delta[p][k]);
      store(a.r + start + i, r[p]);
    }
#pragma unroll
    for (int k = 0; k < kWidth; ++k) squares += r[p][k] * r[p][k];
  }
  const float rstd = row_rstd<Threads>(squares, a.eps, a.columns);
  if (threadIdx.x == 0) a.rstd[blockIdx.x] = rstd;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
    if (i >= a.columns) break;
    const auto weight = load<kWidth>(a.weight + i);
    Pack<S, kWidth> y;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) y.set(k, norm(weight[k], r[p][k], rstd));
    store(a.y + start + i, y);
  }
}

template <class S>
__global__ void __launch_bounds__(kAnyThreads) any_forward_kernel(Forward<S> a) {
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.columns;
  const S* r = a.delta ? a.r : a.x;
  float squares = 0;
  for (int i = threadIdx.x; i < a.columns; i += kAnyThreads) {
    if (a.delta) a.r[start + i] = from_float<S>(to_float(a.x[start + i]) + to_float(a.delta[start + i]));
    const float element = to_float(r[start + i]);
    squares += element * element;
  }
  const float rstd = row_rstd<kAnyThreads>(squares, a.eps, a.columns);
  if (threadIdx.x == 0) a.rstd[blockIdx.x] = rstd;
  for (int i = threadIdx.x; i < a.columns; i += kAnyThreads)
    a.y[start + i] = from_float<S>(norm(to_float(a.weight[i]), to_float(r[start + i]), rstd));
}

template <class S, int Width>
__global__ void __launch_bounds__(kAnyThreads)
    recompute_kernel(const S* __restrict__ r, const S* __restrict__ weight, const float* __restrict__ rstd,
                     S* __restrict__ y, int columns) {
  const int64_t start = static_cast<int64_t>(blockIdx.x) * columns;
  const float scale = rstd[blockIdx.x];
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) * Width; i < columns; i += kAnyThreads * Width) {
    const auto in = load<Width>(r + start + i), w = load<Width>(weight + i);
    Pack<S, Width> out;
#pragma unroll
    for (int k = 0; k < Width; ++k) out.set(k, norm(w[k], in[k], scale));
    store(y + start + i, out);
  }
}

// Sums the weight's gradient in two stages: each block over its rows, then over blocks in order.
template <class S>
struct Backward {
  const S *r, *weight;
  const float* rstd;
  const S* dy;
  S* dr;
  float* partial;  // [blocks, columns]
  int64_t rows;
  int columns;
};

constexpr int kBlocksPerMultiprocessor = 2;

template <class S, int Threads>
__global__ void __launch_bounds__(Threads) backward_kernel(Backward<S> a) {
  constexpr int kWidth = kVector<S>, kPacks = kElements / kWidth;
  Pack<float, kWidth> dweight[kPacks] = {};
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const int64_t start = row * a.columns;
    const float rstd = a.rstd[row];
    Pack<S, kWidth> r[kPacks], dy[kPacks], dr[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
      if (i >= a.columns) break;
      r[p] = load<kWidth>(a.r + start + i);
      dy[p] = load<kWidth>(a.dy + start + i);
      dr[p] = load<kWidth>(a.dr + start + i);
    }
    Pack<S, kWidth> weight[kPacks];
    float dot = 0;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
      if (i >= a.columns) break;
      weight[p] = load<kWidth>(a.weight + i);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const float n = r[p][k] * rstd;
        dweight[p].x[k] += dy[p][k] * n;
        dot += dy[p][k] * weight[p][k] * n;
      }
    }
    const float mean = block_sum<Threads>(dot) / static_cast<float>(a.columns);
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
      if (i >= a.columns) break;
#pragma unroll
      for (int k = 0; k < kWidth; ++k)
        dr[p].set(k, dr[p][k] + rstd * (dy[p][k] * weight[p][k] - r[p][k] * rstd * mean));
      store(a.dr + start + i, dr[p]);
    }
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
    if (i >= a.columns) break;
    store(a.partial + static_cast<int64_t>(blockIdx.x) * a.columns + i, dweight[p]);
  }
}

// Each column has one thread throughout, which keeps the column's partial sum in memory.
template <class S>
__global__ void __launch_bounds__(kAnyThreads) any_backward_kernel(Backward<S> a) {
  float* partial = a.partial + static_cast<int64_t>(blockIdx.x) * a.columns;
  for (int i = threadIdx.x; i < a.columns; i += kAnyThreads) partial[i] = 0;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const S *r = a.r + row * a.columns, *dy = a.dy + row * a.columns;
    S* dr = a.dr + row * a.columns;
    const float rstd = a.rstd[row];
    float dot = 0;
    for (int i = threadIdx.x; i < a.columns; i += kAnyThreads)
      dot += to_float(dy[i]) * to_float(a.weight[i]) * (to_float(r[i]) * rstd);
    const float mean = block_sum<kAnyThreads>(dot) / static_cast<float>(a.columns);
    for (int i = threadIdx.x; i < a.columns; i += kAnyThreads) {
      const float n = to_float(r[i]) * rstd, g = to_float(dy[i]) * to_float(a.weight[i]);
      partial[i] += to_float(dy[i]) * n;
      dr[i] = from_float<S>(to_float(dr[i]) + rstd * (g - n * mean));
    }
  }
}

constexpr int kSumColumns = 32, kSumGroups = 8;  // columns in a block, and partial sums it reads side by side

template <class D>
__global__ void __launch_bounds__(kSumColumns* kSumGroups)
    sum_partials_kernel(const float* __restrict__ partial, int count, int columns, D* dweight, bool accumulate) {
  __shared__ float sums[kSumGroups][kSumColumns];
  const int column = static_cast<int>(blockIdx.x) * kSumColumns + static_cast<int>(threadIdx.x);
  float sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int p = threadIdx.y; p < count; p += kSumGroups) sum += partial[static_cast<int64_t>(p) * columns + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
  float total = accumulate ? to_float(dweight[column]) : 0;
#pragma unroll
  for (int g = 0; g < kSumGroups; ++g) total += sums[g][threadIdx.x];
  dweight[column] = from_float<D>(total);
}

// Calls tile(Constant<Threads>{}) where a row fits in that many threads' registers, any() where it fits in none.
template <class Tile, class Any>
void on_row(bool fit, int columns, Tile&& tile, Any&& any) {
  if (fit && columns <= 32 * kElements) return tile(Constant<32>{});
  if (fit && columns <= 256 * kElements) return tile(Constant<256>{});
  if (fit && columns <= 512 * kElements) return tile(Constant<512>{});
  any();
}

}  // namespace

void rms_norm_forward(Ctx& ctx, const RmsNormForward& args) {
  if (args.x.rows() == 0) return;
  on_dtype(args.x.dtype, [&]<class S>(S) {
    const Forward<S> a{.x = elements<S>(args.x),
                       .delta = elements<S>(args.delta),
                       .weight = elements<S>(args.weight),
                       .eps = static_cast<float>(args.eps),
                       .r = elements<S>(args.r),
                       .y = elements<S>(args.y),
                       .rstd = elements<float>(args.rstd),
                       .columns = static_cast<int>(args.x.shape[1])};
    const bool fit = packs_fit<S>(a.columns, args.x, args.delta, args.weight, args.r, args.y);
    const cudaStream_t stream = ctx.gpu->stream();
    on_row(
        fit, a.columns, [&](auto threads) { forward_kernel<S, threads()><<<args.x.rows(), threads(), 0, stream>>>(a); },
        [&] { any_forward_kernel<S><<<args.x.rows(), kAnyThreads, 0, stream>>>(a); });
  });
  check_cuda(cudaGetLastError(), "rms_norm_forward_kernel");
}

void rms_norm_recompute(Ctx& ctx, const Tensor& r, const Tensor& weight, const Tensor& rstd, const Tensor& y) {
  if (r.rows() == 0) return;
  const auto columns = static_cast<int>(r.shape[1]);
  on_dtype(r.dtype, [&]<class S>(S) {
    on_width<S>(packs_fit<S>(columns, r, weight, y), [&](auto width) {
      recompute_kernel<S, width()><<<r.rows(), kAnyThreads, 0, ctx.gpu->stream()>>>(
          elements<S>(r), elements<S>(weight), elements<float>(rstd), elements<S>(y), columns);
    });
  });
  check_cuda(cudaGetLastError(), "rms_norm_recompute_kernel");
}

void rms_norm_backward(Ctx& ctx, const RmsNormBackward& args) {
  const int64_t rows = args.r.rows(), columns = args.r.shape[1];
  const auto blocks = static_cast<int>(std::min<int64_t>(rows, kBlocksPerMultiprocessor * ctx.gpu->multiprocessors()));
  const Stack::Frame frame(ctx.stack);
  const Tensor partial = ctx.stack.push("rms_norm partial sums", {blocks, columns}, DType::kF32);
  const cudaStream_t stream = ctx.gpu->stream();
  if (rows > 0)
    on_dtype(args.r.dtype, [&]<class S>(S) {
      const Backward<S> a{.r = elements<S>(args.r),
                          .weight = elements<S>(args.weight),
                          .rstd = elements<float>(args.rstd),
                          .dy = elements<S>(args.dy),
                          .dr = elements<S>(args.dr),
                          .partial = elements<float>(partial),
                          .rows = rows,
                          .columns = static_cast<int>(columns)};
      const bool fit = packs_fit<S>(columns, args.r, args.weight, args.dy, args.dr);
      on_row(
          fit, a.columns, [&](auto threads) { backward_kernel<S, threads()><<<blocks, threads(), 0, stream>>>(a); },
          [&] { any_backward_kernel<S><<<blocks, kAnyThreads, 0, stream>>>(a); });
    });
  check_cuda(cudaGetLastError(), "rms_norm_backward_kernel");
  if (!args.dweight) return;
  on_dtype(args.dweight.dtype, [&]<class D>(D) {
    sum_partials_kernel<D><<<ceil_div(columns, kSumColumns), dim3(kSumColumns, kSumGroups), 0, stream>>>(
        elements<float>(partial), blocks, static_cast<int>(columns), elements<D>(args.dweight), args.accumulate);
  });
  check_cuda(cudaGetLastError(), "rms_norm sum_partials_kernel");
}

}  // namespace mixtune::cuda
