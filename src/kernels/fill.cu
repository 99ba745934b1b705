// CUDA half of fill.h.
#include "base/random.h"
#include "kernels/cuda_math.cuh"
#include "kernels/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;

// random_normal in fp32: 53 random bits are u = bits * 2^-53. log(1 - u) keeps its precision at both ends: from u
// itself near 0, from the exact 1 - u near 1.
__device__ float normal(uint64_t key, uint64_t index) {
  const auto radius_bits = static_cast<int64_t>(random_bits(key, 2 * index) >> 11);
  const auto angle_bits = static_cast<int64_t>(random_bits(key, 2 * index + 1) >> 11);
  constexpr int64_t kOne = int64_t{1} << 53;
  const float log = radius_bits < kOne / 2 ? log1pf(static_cast<float>(radius_bits) * -0x1p-53f)
                                           : logf(static_cast<float>(kOne - radius_bits) * 0x1p-53f);
  return sqrtf(-2 * log) * cospif(static_cast<float>(angle_bits) * 0x1p-52f);
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    fill_normal_kernel(S* x, int64_t n, uint64_t key, int64_t first, float mean, float deviation) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) x[i] = from_float<S>(mean + deviation * normal(key, first + i));
}

}  // namespace

void fill_normal(Ctx& ctx, const FillNormal& args) {
  const int64_t n = args.tensor.elements();
  if (n == 0) return;
  on_dtype(args.tensor.dtype, [&]<class S>(S) {
    const auto blocks = static_cast<unsigned>(ceil_div(n, kThreads));
    fill_normal_kernel<<<blocks, kThreads, 0, ctx.gpu->stream()>>>(elements<S>(args.tensor), n, args.key, args.first,
                                                                   static_cast<float>(args.mean),
                                                                   static_cast<float>(args.deviation));
    check_cuda(cudaGetLastError(), "fill_normal_kernel");
  });
}

}  // namespace mixtune::cuda
