// CUDA half of sinkhorn.h: one cooperative launch, whose blocks meet once a round. A warp for each token, its lanes
// side by side along the experts. Every block computes the same c of all blocks' sums, so that all end in the same
// round.
#include <cooperative_groups.h>

#include <cfloat>

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_row.cuh"

namespace mixtune::cuda {

namespace {

// Of a launch, at most: each block reads the sums of all.
constexpr int64_t kMostBlocks = 256;

// sums += r_t exp(l_te) of the lane's experts.
template <int PerLane>
__device__ void add_balanced_row(const Row<PerLane>& row, const float (&c)[PerLane], float live,
                                 double (&sums)[PerLane]) {
  float highest = row.logits[0], exps[PerLane], sum = 0;
#pragma unroll
  for (int i = 1; i < PerLane; ++i) highest = fmaxf(highest, row.logits[i]);
  highest = warp_max(highest);
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    exps[i] = expf(row.logits[i] - highest);
    sum += c[i] * exps[i];
  }
  sum = warp_sum(sum) + static_cast<float>(kSinkhornEpsilon) * expf(-highest);
  const float r = 1 / (live * (sum < FLT_MIN ? FLT_MIN : sum));  // a NaN stays one
#pragma unroll
  for (int i = 0; i < PerLane; ++i) sums[i] += r * exps[i];
}

// The sum of every warp's value of a lane, in every warp, in their order.
__device__ double over_warps(double mine) {
  __shared__ double all[kRouterWarps][kWarp];
  const int lane = threadIdx.x % kWarp;
  all[threadIdx.x / kWarp][lane] = mine;
  __syncthreads();
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kRouterWarps; ++w) sum += all[w][lane];
  __syncthreads();
  return sum;
}

// partial [2, blocks, experts]: the blocks' sums of this round and of that before, which some may still read.
template <int PerLane>
__global__ void __launch_bounds__(kRouterThreads)
    sinkhorn_kernel(const float* __restrict__ logits, float* __restrict__ offsets, double* partial, int64_t live,
                    int experts) {
  const auto grid = cooperative_groups::this_grid();
  const int warp = threadIdx.x / kWarp;
  float c[PerLane];
#pragma unroll
  for (int i = 0; i < PerLane; ++i) c[i] = 1;
  double change = live > 0 ? 1 : 0;
  for (int round = 0; change > kSinkhornTolerance && round < kSinkhornMostRounds; ++round) {
    double sums[PerLane] = {};
    for (int64_t t = int64_t{blockIdx.x} * kRouterWarps + warp; t < live; t += int64_t{gridDim.x} * kRouterWarps)
      add_balanced_row(Row<PerLane>(logits + t * experts, experts), c, static_cast<float>(live), sums);
    double* all = partial + round % 2 * int64_t{gridDim.x} * experts;
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      const int e = Row<PerLane>::expert(i);
      const double sum = over_warps(sums[i]);
      if (warp == 0 && e < experts) all[int64_t{blockIdx.x} * experts + e] = sum;
    }
    grid.sync();
    change = 0;
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      const int e = Row<PerLane>::expert(i);
      double sum = 0;
      for (unsigned block = warp; e < experts && block < gridDim.x; block += kRouterWarps)
        sum += __ldcg(all + int64_t{block} * experts + e);
      sum = over_warps(sum) + kSinkhornEpsilon;
      const float before = c[i];
      c[i] = static_cast<float>(1 / (experts * sum));
      if (e < experts) change += fabs(static_cast<double>(c[i]) - before) / experts;
    }
    change = warp_sum(change);
  }
  if (blockIdx.x > 0 || warp > 0) return;
#pragma unroll
  for (int i = 0; i < PerLane; ++i)
    if (Row<PerLane>::expert(i) < experts) offsets[Row<PerLane>::expert(i)] = logf(c[i]);
}

// As many as can be at work at once, which blocks that meet must be.
template <int PerLane>
int64_t most_blocks() {
  int device = 0, processors = 0, of_each = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  check_cuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_each, sinkhorn_kernel<PerLane>, kRouterThreads, 0),
             "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return std::min<int64_t>(int64_t{processors} * of_each, kMostBlocks);
}

}  // namespace

void sinkhorn(Ctx& ctx, const Sinkhorn& args) {
  const int64_t experts = args.logits.shape[1];
  on_experts(experts, 1, [&](auto per_lane) {
    const int64_t wanted = std::max<int64_t>(ceil_div(args.live, kRouterWarps), 1);
    const int64_t blocks = std::min(wanted, most_blocks<per_lane>());
    const Stack::Frame frame(ctx.stack);
    const Tensor partial = ctx.stack.push("sinkhorn sums, partial", {2, blocks, experts}, DType::kF64);
    const float* logits = args.logits.as<float>();
    float* offsets = args.offsets.as<float>();
    double* sums = partial.as<double>();
    int64_t live = args.live;
    auto columns = static_cast<int>(experts);
    void* arguments[] = {&logits, &offsets, &sums, &live, &columns};
    check_cuda(cudaLaunchCooperativeKernel(sinkhorn_kernel<per_lane>, dim3(static_cast<unsigned>(blocks)),
                                           dim3(kRouterThreads), arguments, 0, ctx.gpu->stream()),
               "sinkhorn_kernel");
  });
}

}  // namespace mixtune::cuda
