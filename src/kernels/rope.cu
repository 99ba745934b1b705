// RoPE on a GPU: a block for each token; a thread keeps its cosines and sines and goes over the heads.
#include <algorithm>
#include <cmath>

#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kMaxHalf = 512;  // half of the largest head_dim

// Frequencies from the host, with the CPU twin's bits: at position p an ulp of a frequency is p ulps of the angle.
struct Frequencies {
  float of[kMaxHalf];
};

Frequencies frequencies(double theta, int64_t dim) {
  MT_CHECK(dim / 2 <= kMaxHalf);
  Frequencies frequency{};
  for (int64_t i = 0; i < dim / 2; ++i)
    frequency.of[i] = 1 / std::pow(static_cast<float>(theta), static_cast<float>(2 * i) / static_cast<float>(dim));
  return frequency;
}

__global__ void __launch_bounds__(kThreads)
    table_kernel(const int32_t* positions, Frequencies frequency, float* table, int half) {
  float* row = table + static_cast<int64_t>(blockIdx.x) * 2 * half;
  const auto position = static_cast<float>(positions[blockIdx.x]);
  for (int i = threadIdx.x; i < half; i += kThreads) sincosf(position * frequency.of[i], row + half + i, row + i);
}

template <class S>
struct Turn {
  S* qkv;
  const float* table;
  int64_t width;  // of a row of qkv
  int heads;      // those that turn
  int half;
  float sign;
};

// threadIdx: x counts packs of half a head, y heads.
template <class S, int Width>
__global__ void __launch_bounds__(kThreads) rope_kernel(Turn<S> a) {
  const float* cosines = a.table + static_cast<int64_t>(blockIdx.x) * 2 * a.half;
  S* row = a.qkv + blockIdx.x * a.width;
  for (int i = static_cast<int>(threadIdx.x) * Width; i < a.half; i += static_cast<int>(blockDim.x) * Width) {
    const auto cosine = load<Width>(cosines + i), sine = load<Width>(cosines + a.half + i);
    for (int head = threadIdx.y; head < a.heads; head += blockDim.y) {
      S *first = row + 2 * head * a.half + i, *second = first + a.half;
      const auto x = load<Width>(first), y = load<Width>(second);
      Pack<S, Width> turned_x, turned_y;
#pragma unroll
      for (int k = 0; k < Width; ++k) {
        turned_x.set(k, x[k] * cosine[k] - y[k] * (a.sign * sine[k]));
        turned_y.set(k, y[k] * cosine[k] + x[k] * (a.sign * sine[k]));
      }
      store(first, turned_x);
      store(second, turned_y);
    }
  }
}

}  // namespace

void rope_table(Ctx& ctx, const Tensor& positions, double theta, const Tensor& table) {
  if (table.elements() == 0) return;
  const int64_t dim = table.shape[1];
  table_kernel<<<table.rows(), std::min<int64_t>(kThreads, ceil_div(dim / 2, kWarp) * kWarp), 0, ctx.gpu->stream()>>>(
      elements<int32_t>(positions), frequencies(theta, dim), elements<float>(table), static_cast<int>(dim / 2));
  check_cuda(cudaGetLastError(), "rope_table_kernel");
}

void rope(Ctx& ctx, const RopeArgs& args) {
  if (args.qkv.elements() == 0) return;
  on_dtype(args.qkv.dtype, [&]<class S>(S) {
    const Turn<S> a{.qkv = elements<S>(args.qkv),
                    .table = elements<float>(args.table),
                    .width = args.qkv.shape[1],
                    .heads = static_cast<int>(args.q_heads + args.kv_heads),
                    .half = static_cast<int>(args.table.shape[1] / 2),
                    .sign = args.inverse ? -1.0f : 1.0f};
    on_width<S>(packs_fit<S>(a.half, args.qkv, args.table), [&](auto width) {
      const int64_t x = std::min<int64_t>(kThreads, a.half / width), turns = ceil_div(a.heads, kThreads / x);
      const dim3 threads(x, ceil_div(a.heads, turns));
      rope_kernel<S, width()><<<args.qkv.rows(), threads, 0, ctx.gpu->stream()>>>(a);
    });
  });
  check_cuda(cudaGetLastError(), "rope_kernel");
}

}  // namespace mixtune::cuda
