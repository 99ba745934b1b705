// CUDA half of cast.h, between different dtypes (a copy within one is cast.cpp's).
#include <cuda_fp16.h>

#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256, kWidth = 4, kUnroll = 4;  // a thread takes kUnroll times kWidth elements
constexpr int64_t kBlockElements = kThreads * kWidth * kUnroll;

__device__ float widened(__half x) {
  return __half2float(x);
}
template <class S>
__device__ float widened(S x) {
  return to_float(x);
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads) cast_kernel(const From* from, To* to, int64_t n, bool vectors) {
  const int64_t begin = blockIdx.x * kBlockElements;
  if (!vectors || begin + kBlockElements > n) {
    for (int64_t i = begin + threadIdx.x; i < min(n, begin + kBlockElements); i += kThreads)
      to[i] = from_float<To>(widened(from[i]));
    return;
  }
  Pack<From, kWidth> in[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) in[u] = load<kWidth>(from + begin + (u * kThreads + threadIdx.x) * kWidth);
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    Pack<To, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) out.set(i, widened(in[u].x[i]));
    store(to + begin + (u * kThreads + threadIdx.x) * kWidth, out);
  }
}

template <class From, class To>
void launch(Ctx& ctx, const Tensor& from, const Tensor& to) {
  const int64_t n = from.elements();
  const bool vectors = reinterpret_cast<uintptr_t>(from.data) % sizeof(Pack<From, kWidth>) == 0 &&
                       reinterpret_cast<uintptr_t>(to.data) % sizeof(Pack<To, kWidth>) == 0;
  cast_kernel<<<static_cast<unsigned>(ceil_div(n, kBlockElements)), kThreads, 0, ctx.gpu->stream()>>>(
      static_cast<const From*>(from.data), static_cast<To*>(to.data), n, vectors);
  check_cuda(cudaGetLastError(), "cast_kernel");
}

}  // namespace

void cast(Ctx& ctx, const Tensor& from, const Tensor& to) {
  if (from.elements() == 0) return;
  on_dtype(to.dtype, [&]<class To>(To) {
    if (from.dtype == DType::kF16) return launch<__half, To>(ctx, from, to);
    on_dtype(from.dtype, [&]<class From>(From) {
      if constexpr (!std::is_same_v<From, To>) launch<From, To>(ctx, from, to);
    });
  });
}

}  // namespace mixtune::cuda
