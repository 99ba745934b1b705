// Top-k of the logits and the weights of their scores: a warp for each token, its lanes side by side along the experts.
#include <climits>

#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_row.cuh"

namespace mixtune::cuda {

namespace {

struct Choice {
  float logit;
  int expert;

  // A larger logit, or the same and a lower index. Infallible: of a row of NaNs too, k different experts are chosen.
  __device__ bool before(const Choice& other) const {
    return logit > other.logit || (logit == other.logit && expert < other.expert);
  }
};

// The first choice of the warp, in every lane.
__device__ Choice warp_first(Choice mine) {
#pragma unroll
  for (int lane = kWarp / 2; lane > 0; lane /= 2) {
    const Choice other{__shfl_xor_sync(~0u, mine.logit, lane), __shfl_xor_sync(~0u, mine.expert, lane)};
    if (other.before(mine)) mine = other;
  }
  return mine;
}

// Lane `slot` < k gets the expert of that slot, the others -1.
template <int PerLane>
__device__ int top_k(const Row<PerLane>& row, int experts, int k) {
  int result = -1;
  uint32_t taken = 0;  // which of the lane's experts
  for (int slot = 0; slot < k; ++slot) {
    Choice best{-INFINITY, INT_MAX};
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      const Choice here{isnan(row.logits[i]) ? -INFINITY : row.logits[i], row.expert(i)};
      if (here.expert < experts && !(taken >> i & 1) && here.before(best)) best = here;
    }
    best = warp_first(best);
    if (best.expert % kWarp == threadIdx.x % kWarp) taken |= 1u << (best.expert / kWarp);
    if (slot == threadIdx.x % kWarp) result = best.expert;
  }
  return result;
}

// The row with what its experts are chosen by in the place of logits.
template <int PerLane>
__device__ Row<PerLane> biased(Row<PerLane> row, const float* bias, int experts) {
#pragma unroll
  for (int i = 0; i < PerLane; ++i)
    if (row.expert(i) < experts) row.logits[i] = sigmoid(row.logits[i]) + bias[row.expert(i)];
  return row;
}

template <int PerLane>
__device__ Row<PerLane> offset(Row<PerLane> row, const float* offsets, int experts) {
#pragma unroll
  for (int i = 0; i < PerLane; ++i)
    if (row.expert(i) < experts) row.logits[i] += offsets[row.expert(i)];
  return row;
}

// Softmax over the logits of lanes < k; 0 in the others.
__device__ float renormalise(float logit, int k) {
  const bool inside = threadIdx.x % kWarp < k;
  const float highest = warp_max(inside ? logit : -INFINITY);
  const float weight = inside ? expf(logit - highest) : 0;
  return weight / warp_sum(weight);
}

// A sigmoid by itself, or the k of lanes < k divided by their sum.
__device__ float sigmoid_weight(float logit, int k) {
  const float weight = threadIdx.x % kWarp < k ? sigmoid(logit) : 0;
  return k > 1 ? weight / (warp_sum(weight) + static_cast<float>(kSigmoidSumEpsilon)) : weight;
}

// to[lane] = the sum of the lane's values over the block's warps, in their order, for lanes < count.
__device__ void sum_over_warps(double mine, double* to, int count) {
  __shared__ double all[kRouterWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  all[warp][lane] = mine;
  __syncthreads();
  if (warp == 0 && lane < count) {
    double sum = 0;
#pragma unroll
    for (int w = 0; w < kRouterWarps; ++w) sum += all[w][lane];
    to[lane] = sum;
  }
  __syncthreads();
}

// partial[block] = the block's part of stats [2, E].
template <int PerLane, Scoring scoring>
__global__ void __launch_bounds__(kRouterThreads)
    forward_kernel(const float* __restrict__ logits, const float* __restrict__ bias, const float* __restrict__ offsets,
                   int32_t* __restrict__ chosen, float* __restrict__ weights, double* __restrict__ partial,
                   int64_t rows, int64_t live, int experts, int k, bool forced, float scaling) {
  const int lane = threadIdx.x % kWarp;
  double probabilities[PerLane] = {};
  int counts[PerLane] = {};
  for (int64_t t = int64_t{blockIdx.x} * kRouterWarps + threadIdx.x / kWarp; t < rows;
       t += int64_t{gridDim.x} * kRouterWarps) {
    int expert = lane < k && forced ? chosen[t * k + lane] : -1;
    float weight = 0;
    if (t < live) {
      const Row<PerLane> row(logits + t * experts, experts);
      if (!forced)
        expert = top_k(bias != nullptr      ? biased(row, bias, experts)
                       : offsets != nullptr ? offset(row, offsets, experts)
                                            : row,
                       experts, k);
      const float logit = lane < k && scoring != Scoring::kPreSoftmax ? logits[t * experts + expert] : 0;
      if constexpr (scoring == Scoring::kSoftmax) weight = renormalise(logit, k);
      if constexpr (scoring == Scoring::kSigmoid) weight = sigmoid_weight(logit, k);
      float p[PerLane];
      row.template probabilities<scoring>(p);
#pragma unroll
      for (int i = 0; i < PerLane; ++i) probabilities[i] += p[i];
      for (int slot = 0; slot < k; ++slot) {
        const int e = __shfl_sync(~0u, expert, slot);
#pragma unroll
        for (int i = 0; i < PerLane; ++i) counts[i] += e == row.expert(i);
        if constexpr (scoring == Scoring::kPreSoftmax) {
          const float owned = row.at(p, e);
          if (lane == slot) weight = owned;
        }
      }
      weight *= scaling;
    }
    if (lane < k && !forced) chosen[t * k + lane] = expert;
    if (lane < k) weights[t * k + lane] = weight;
  }

  double* to = partial + int64_t{blockIdx.x} * 2 * experts;
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    sum_over_warps(counts[i], to + i * kWarp, experts - i * kWarp);
    sum_over_warps(probabilities[i], to + experts + i * kWarp, experts - i * kWarp);
  }
}

// stats[i] = the sum of partial[b, i] over blocks b: a block for each i.
__global__ void __launch_bounds__(kRouterThreads)
    stats_kernel(const double* __restrict__ partial, double* __restrict__ stats, int blocks) {
  double sum = 0;
  for (int b = threadIdx.x; b < blocks; b += kRouterThreads) sum += partial[int64_t{b} * gridDim.x + blockIdx.x];
  sum = block_sum<kRouterThreads>(sum);
  if (threadIdx.x == 0) stats[blockIdx.x] = sum;
}

template <int PerLane, Scoring scoring>
__global__ void __launch_bounds__(kRouterThreads)
    backward_kernel(const float* __restrict__ logits, const int32_t* __restrict__ chosen,
                    const float* __restrict__ weights, const float* __restrict__ dweights,
                    const double* __restrict__ prob_grad, float* __restrict__ dlogits, int64_t rows, int64_t live,
                    int experts, int k, float scaling) {
  const int lane = threadIdx.x % kWarp;
  const int64_t t = int64_t{blockIdx.x} * kRouterWarps + threadIdx.x / kWarp;
  if (t >= rows) return;
  constexpr bool kAreWeights = scoring == Scoring::kPreSoftmax;  // the probabilities
  float d[PerLane] = {};
  if (t < live && (kAreWeights || prob_grad != nullptr)) {
    const Row<PerLane> row(logits + t * experts, experts);
    float p[PerLane], g[PerLane], mean = 0;
    row.template probabilities<scoring>(p);
#pragma unroll
    for (int i = 0; i < PerLane; ++i)
      g[i] = prob_grad != nullptr && row.expert(i) < experts ? static_cast<float>(prob_grad[row.expert(i)]) : 0;
    for (int slot = 0; kAreWeights && slot < k; ++slot) {
      const int e = chosen[t * k + slot];
      const float added = scaling * dweights[t * k + slot];
#pragma unroll
      for (int i = 0; i < PerLane; ++i)
        if (e == row.expert(i)) g[i] += added;
    }
#pragma unroll
    for (int i = 0; i < PerLane; ++i) mean += p[i] * g[i];
    mean = warp_sum(mean);
#pragma unroll
    for (int i = 0; i < PerLane; ++i) d[i] = p[i] * (g[i] - mean) * slope<scoring>(row.logits[i]);
  }
  if (t < live && !kAreWeights) {
    const int expert = lane < k ? chosen[t * k + lane] : -1;
    const float w = lane < k ? weights[t * k + lane] : 0, dw = lane < k ? dweights[t * k + lane] : 0;
    const float mean = scoring == Scoring::kSoftmax || k > 1 ? warp_sum(w * dw) / scaling : 0;
    float through = w * (dw - mean);
    if (scoring == Scoring::kSigmoid && lane < k) through *= slope<scoring>(logits[t * experts + expert]);
    for (int slot = 0; slot < k; ++slot) {
      const int e = __shfl_sync(~0u, expert, slot);
      const float added = __shfl_sync(~0u, through, slot);
#pragma unroll
      for (int i = 0; i < PerLane; ++i)
        if (e == lane + i * kWarp) d[i] += added;
    }
  }
#pragma unroll
  for (int i = 0; i < PerLane; ++i)
    if (lane + i * kWarp < experts) dlogits[t * experts + lane + i * kWarp] = d[i];
}

// op(logits of a lane, the scoring), as constants.
template <class Op>
void on_kernel(const RouterScores& scores, int64_t experts, int64_t k, Op&& op) {
  on_experts(experts, k,
             [&](auto per_lane) { on_scoring(scores.scoring, [&](auto scoring) { op(per_lane, scoring); }); });
}

// Blocks of a forward pass, at most: each adds a row of partial statistics.
constexpr int64_t kForwardBlocks = 1024;

}  // namespace

void router_forward(Ctx& ctx, const RouterForward& args) {
  const int64_t rows = args.logits.rows(), experts = args.logits.shape[1], k = args.experts.shape[1];
  const auto blocks = static_cast<int>(std::min(ceil_div(rows, kRouterWarps), kForwardBlocks));
  const Stack::Frame frame(ctx.stack);
  const Tensor partial = ctx.stack.push("router stats, partial", {blocks, 2, experts}, DType::kF64);
  if (blocks > 0)
    on_kernel(args.scores, experts, k, [&](auto per_lane, auto scoring) {
      forward_kernel<per_lane, scoring><<<blocks, kRouterThreads, 0, ctx.gpu->stream()>>>(
          args.logits.as<float>(), elements<float>(args.bias), elements<float>(args.offsets),
          args.experts.as<int32_t>(), args.weights.as<float>(), partial.as<double>(), rows, args.live,
          static_cast<int>(experts), static_cast<int>(k), args.forced, static_cast<float>(args.scores.scaling));
      check_cuda(cudaGetLastError(), "router forward_kernel");
    });
  stats_kernel<<<static_cast<unsigned>(2 * experts), kRouterThreads, 0, ctx.gpu->stream()>>>(
      partial.as<double>(), args.stats.as<double>(), blocks);
  check_cuda(cudaGetLastError(), "router stats_kernel");
}

void router_backward(Ctx& ctx, const RouterBackward& args) {
  const int64_t rows = args.logits.rows(), experts = args.logits.shape[1], k = args.experts.shape[1];
  if (rows == 0) return;
  on_kernel(args.scores, experts, k, [&](auto per_lane, auto scoring) {
    const auto blocks = static_cast<unsigned>(ceil_div(rows, kRouterWarps));
    backward_kernel<per_lane, scoring><<<blocks, kRouterThreads, 0, ctx.gpu->stream()>>>(
        args.logits.as<float>(), args.experts.as<int32_t>(), args.weights.as<float>(), args.dweights.as<float>(),
        elements<double>(args.prob_grad), args.dlogits.as<float>(), rows, args.live, static_cast<int>(experts),
        static_cast<int>(k), static_cast<float>(args.scores.scaling));
    check_cuda(cudaGetLastError(), "router backward_kernel");
  });
}

}  // namespace mixtune::cuda
