// Two stages: a block for each part of the tokens, a warp for a token at a time; then one block adds up the parts.
#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_row.cuh"

namespace mixtune::cuda {

namespace {

template <int PerLane>
__global__ void __launch_bounds__(kRouterThreads)
    parts_kernel(const float* __restrict__ logits, double* __restrict__ parts, int64_t live, int experts) {
  double entropy = 0, squares = 0;  // of this lane's experts
  for (int64_t t = int64_t{blockIdx.x} * kRouterWarps + threadIdx.x / kWarp; t < live; t += gridDim.x * kRouterWarps) {
    const Row<PerLane> row(logits + t * experts, experts);
    const float lse = row.log_sum_exp();
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      if (row.expert(i) >= experts) continue;
      const float below = lse - row.logits[i];
      entropy += double{expf(-below) * below};
      squares += double{row.logits[i]} * double{row.logits[i]};
    }
  }
  entropy = block_sum<kRouterThreads>(entropy);
  squares = block_sum<kRouterThreads>(squares);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = entropy;
    parts[kHealthParts + blockIdx.x] = squares;
  }
}

__global__ void __launch_bounds__(kHealthParts)
    tally_kernel(const double* __restrict__ parts, const double* __restrict__ routed, double* __restrict__ tally,
                 int64_t live, int experts) {
  const double entropy = block_sum<kHealthParts>(parts[threadIdx.x]);
  const double squares = block_sum<kHealthParts>(parts[kHealthParts + threadIdx.x]);
  for (int e = threadIdx.x; e < experts; e += kHealthParts) tally[e] += routed[e];
  if (threadIdx.x != 0) return;
  tally[experts + kTallyTokens] += static_cast<double>(live);
  tally[experts + kTallyEntropy] += entropy;
  tally[experts + kTallySquares] += squares;
}

}  // namespace

void router_health(Ctx& ctx, const RouterHealth& args, const Tensor& parts) {
  const auto experts = static_cast<int>(args.logits.shape[1]);
  on_experts(experts, 1, [&](auto per_lane) {
    parts_kernel<per_lane><<<kHealthParts, kRouterThreads, 0, ctx.gpu->stream()>>>(
        args.logits.as<float>(), parts.as<double>(), args.live, experts);
    check_cuda(cudaGetLastError(), "router parts_kernel");
  });
  tally_kernel<<<1, kHealthParts, 0, ctx.gpu->stream()>>>(parts.as<double>(), args.stats.as<double>(),
                                                          args.tally.as<double>(), args.live, experts);
  check_cuda(cudaGetLastError(), "router tally_kernel");
}

}  // namespace mixtune::cuda
