// CUDA half of router_noise.h: a thread for each element.
#include "kernels/cuda_math.cuh"
#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;

__device__ int64_t element() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    jitter_kernel(const S* __restrict__ x, S* __restrict__ y, int64_t n, uint64_t mixed_key, int64_t first, float eps,
                  bool accumulate) {
  const int64_t i = element();
  if (i >= n) return;
  const float jittered = to_float(x[i]) * jitter_factor(mixed_key, first + i, eps);
  y[i] = from_float<S>(accumulate ? to_float(y[i]) + jittered : jittered);
}

__global__ void __launch_bounds__(kThreads) draw_kernel(int32_t* __restrict__ chosen, int64_t pairs, int64_t live_pairs,
                                                        uint64_t mixed_key, int64_t first_token, int k, int experts) {
  const int64_t i = element();
  if (i < pairs) chosen[i] = i < live_pairs ? drawn_expert(mixed_key, first_token + i / k, i % k, experts) : -1;
}

unsigned blocks(int64_t elements) {
  return static_cast<unsigned>(ceil_div(elements, kThreads));
}

}  // namespace

void router_jitter(Ctx& ctx, const RouterJitter& args) {
  const int64_t n = args.x.elements();
  if (n == 0) return;
  on_dtype(args.x.dtype, [&]<class S>(S) {
    jitter_kernel<<<blocks(n), kThreads, 0, ctx.gpu->stream()>>>(elements<S>(args.x), elements<S>(args.y), n,
                                                                 mix_key(args.key), args.first_token * args.x.shape[1],
                                                                 static_cast<float>(args.eps), args.accumulate);
    check_cuda(cudaGetLastError(), "router jitter_kernel");
  });
}

void draw_experts(Ctx& ctx, const DrawExperts& args) {
  const int64_t pairs = args.experts.elements(), k = args.experts.shape[1];
  if (pairs == 0) return;
  draw_kernel<<<blocks(pairs), kThreads, 0, ctx.gpu->stream()>>>(
      args.experts.as<int32_t>(), pairs, args.live * k, mix_key(args.key), args.first_token, static_cast<int>(k),
      static_cast<int>(args.all_experts));
  check_cuda(cudaGetLastError(), "router draw_kernel");
}

}  // namespace mixtune::cuda
