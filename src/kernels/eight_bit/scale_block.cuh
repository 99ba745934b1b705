// What kernels share that look for the largest magnitudes of scale blocks (round_operand.h).
#pragma once

#include <algorithm>

#include "kernels/cuda_math.cuh"

namespace mixtune::cuda {

// The bits of a finite magnitude, which order as magnitudes do; 0 for a NaN or an infinity.
__device__ inline uint32_t magnitude_bits(float x) {
  const uint32_t bits = __float_as_uint(x) & 0x7FFFFFFF;
  return bits < 0x7F800000 ? bits : 0;
}

constexpr int kAmaxThreads = 256;

// amax of each matrix, which is 0 before.
template <class S>
__global__ void __launch_bounds__(kAmaxThreads)
    amax_kernel(const S* x, int64_t elements, int64_t live, uint32_t* amax) {
  const S* matrix = x + blockIdx.y * elements;
  uint32_t most = 0;
  for (int64_t i = blockIdx.x * int64_t{kAmaxThreads} + threadIdx.x; i < live; i += int64_t{gridDim.x} * kAmaxThreads)
    most = max(most, magnitude_bits(to_float(matrix[i])));
  most = __reduce_max_sync(~0u, most);
  if (threadIdx.x % kWarp == 0 && most > 0) atomicMax(amax + blockIdx.y, most);
}

// Writes to amax [matrices] the largest magnitude of the first `live` of each matrix's elements, as bits.
template <class S>
uint32_t* find_matrix_amax(Ctx& ctx, const S* x, int64_t elements, int64_t live, const Tensor& amax) {
  zero(ctx, amax);
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>(ceil_div(live, kAmaxThreads), 1, 512));
  auto* bits = static_cast<uint32_t*>(amax.data);
  amax_kernel<<<dim3(blocks, static_cast<unsigned>(amax.rows())), kAmaxThreads, 0, ctx.gpu->stream()>>>(x, elements,
                                                                                                        live, bits);
  check_cuda(cudaGetLastError(), "amax_kernel");
  return bits;
}

}  // namespace mixtune::cuda
