// What the router's kernels share: a warp for each token, its lanes side by side along the experts.
#pragma once

#include "kernels/cuda_math.cuh"
#include "kernels/moe/router.h"

namespace mixtune::cuda {

constexpr int kRouterThreads = 256;
constexpr int kRouterWarps = kRouterThreads / kWarp;

__device__ inline float sigmoid(float x) {
  return 1 / (1 + expf(-x));
}

// A token's logits, in registers: expert lane + 32 i at i. Past the last expert -infinity, of probability 0.
template <int PerLane>
struct Row {
  float logits[PerLane];

  __device__ Row(const float* from, int experts) {
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      const int e = expert(i);
      logits[i] = e < experts ? from[e] : -INFINITY;
    }
  }

  __device__ static int expert(int i) {
    return static_cast<int>(threadIdx.x % kWarp) + i * kWarp;
  }

  __device__ void softmax(float (&p)[PerLane]) const {
    float highest = logits[0], sum = 0;
#pragma unroll
    for (int i = 1; i < PerLane; ++i) highest = fmaxf(highest, logits[i]);
    highest = warp_max(highest);
#pragma unroll
    for (int i = 0; i < PerLane; ++i) sum += p[i] = expf(logits[i] - highest);
    sum = warp_sum(sum);
#pragma unroll
    for (int i = 0; i < PerLane; ++i) p[i] /= sum;
  }

  // An expert's element of p, in every lane.
  __device__ float at(const float (&p)[PerLane], int e) const {
    float mine = 0;
#pragma unroll
    for (int i = 0; i < PerLane; ++i)
      if (e == expert(i)) mine = p[i];
    return __shfl_sync(~0u, mine, e % kWarp);
  }

  // The softmax, or the sigmoids divided by their sum.
  template <Scoring scoring>
  __device__ void probabilities(float (&p)[PerLane]) const {
    if constexpr (scoring != Scoring::kSigmoid) {
      softmax(p);
    } else {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < PerLane; ++i) sum += p[i] = sigmoid(logits[i]);
      sum = warp_sum(sum) + static_cast<float>(kSigmoidSumEpsilon);
#pragma unroll
      for (int i = 0; i < PerLane; ++i) p[i] /= sum;
    }
  }

  __device__ float log_sum_exp() const {
    float highest = logits[0], sum = 0;
#pragma unroll
    for (int i = 1; i < PerLane; ++i) highest = fmaxf(highest, logits[i]);
    highest = warp_max(highest);
#pragma unroll
    for (int i = 0; i < PerLane; ++i) sum += expf(logits[i] - highest);
    return highest + logf(warp_sum(sum));
  }
};

// A sigmoid's derivative by the sigmoid; 1 of a softmax.
template <Scoring scoring>
__device__ float slope(float logit) {
  return scoring == Scoring::kSigmoid ? sigmoid(-logit) : 1;
}

// op(the scoring), as a constant.
template <class Op>
void on_scoring(Scoring scoring, Op&& op) {
  if (scoring == Scoring::kSigmoid) return op(std::integral_constant<Scoring, Scoring::kSigmoid>{});
  if (scoring == Scoring::kPreSoftmax) return op(std::integral_constant<Scoring, Scoring::kPreSoftmax>{});
  op(std::integral_constant<Scoring, Scoring::kSoftmax>{});
}

// op(logits of a lane). A token chooses at most one expert a lane.
static_assert(kMaxGpuExpertsPerToken == kWarp);
template <class Op>
void on_experts(int64_t experts, int64_t k, Op&& op) {
  MT_CHECK(experts <= kMaxGpuExperts && k <= kMaxGpuExpertsPerToken);
  if (experts <= kWarp) return op(std::integral_constant<int, 1>{});
  if (experts <= 8 * kWarp) return op(std::integral_constant<int, 8>{});
  op(std::integral_constant<int, kMaxGpuExperts / kWarp>{});
}

}  // namespace mixtune::cuda
