// What CUDA kernels share: the scalar types, vector access, reductions, and the branch on a tensor's dtype.
//
// S is the type in memory, float or bf16; arithmetic is in float.
#pragma once

#include <cuda_bf16.h>

#include "tensor/ctx.h"
#include "tensor/gpu.h"

namespace mixtune::cuda {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(bf16 x) {
  return __bfloat162float(x);
}
template <class S>
__device__ S from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// How many elements fit into 16 bytes.
template <class S>
constexpr int kVector = 16 / static_cast<int>(sizeof(S));

// Loads kVector<S> elements from, or stores them to, an address aligned to 16 bytes.
template <class S>
__device__ void load_vector(const S* from, float (&x)[kVector<S>]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const S* elements = reinterpret_cast<const S*>(&bits);
#pragma unroll
  for (int i = 0; i < kVector<S>; ++i) x[i] = to_float(elements[i]);
}
template <class S>
__device__ void store_vector(S* to, const float (&x)[kVector<S>]) {
  uint4 bits;
  S* elements = reinterpret_cast<S*>(&bits);
#pragma unroll
  for (int i = 0; i < kVector<S>; ++i) elements[i] = from_float<S>(x[i]);
  *reinterpret_cast<uint4*>(to) = bits;
}

// Whether load_vector can read rows of `columns` elements of S at `data`.
template <class S>
bool vectors_fit(const void* data, int64_t columns) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && columns % kVector<S> == 0;
}

// The sum and the maximum over a warp, in every lane.
template <class T>
__device__ T warp_sum(T x) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(~0u, x, lane);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lane));
  return x;
}

// The sum and the maximum over a block of `Threads` threads (a multiple of 32), in every thread. They end with a
// barrier, so that calls may follow each other.
template <int Threads, class T>
__device__ T block_sum(T x) {
  __shared__ T sums[Threads / kWarp];
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = x;
  __syncthreads();
  T total = 0;
#pragma unroll
  for (int w = 0; w < Threads / kWarp; ++w) total += sums[w];
  __syncthreads();
  return total;
}
template <int Threads>
__device__ float block_max(float x) {
  __shared__ float highest[Threads / kWarp];
  x = warp_max(x);
  if (threadIdx.x % kWarp == 0) highest[threadIdx.x / kWarp] = x;
  __syncthreads();
  float all = highest[0];
#pragma unroll
  for (int w = 1; w < Threads / kWarp; ++w) all = fmaxf(all, highest[w]);
  __syncthreads();
  return all;
}

// Calls op(S{}) for the dtype of a tensor: fp32 or bf16.
template <class Op>
void on_dtype(DType dtype, Op&& op) {
  if (dtype == DType::kBF16) return op(bf16{});
  MT_CHECK(dtype == DType::kF32);
  op(float{});
}

// A tensor's elements as a kernel takes them; null where it is empty.
template <class S>
S* elements(const Tensor& tensor) {
  if (!tensor) return nullptr;
  if constexpr (std::is_same_v<S, bf16>) {
    MT_CHECK(tensor.dtype == DType::kBF16);
    return static_cast<bf16*>(tensor.data);
  } else {
    return tensor.as<S>();
  }
}

}  // namespace mixtune::cuda
