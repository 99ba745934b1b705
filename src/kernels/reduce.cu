// CUDA half of reduce.h.
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 1024;

// One block: thread t adds values t, t + kThreads, ...; then the threads' sums are added in a fixed tree.
__global__ void __launch_bounds__(kThreads)
    add_sum_kernel(const double* __restrict__ values, int64_t n, double* __restrict__ total) {
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += values[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *total += sum;
}

}  // namespace

void add_sum(Ctx& ctx, const Tensor& values, const Tensor& total) {
  if (values.elements() == 0) return;
  add_sum_kernel<<<1, kThreads, 0, ctx.gpu->stream()>>>(values.as<double>(), values.elements(), total.as<double>());
  check_cuda(cudaGetLastError(), "add_sum_kernel");
}

}  // namespace mixtune::cuda
