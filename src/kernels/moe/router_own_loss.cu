// A warp for each token. Documents' pairs are counted by integers, whose order does not matter.
#include "kernels/moe/cuda_ops.h"
#include "kernels/moe/router_row.cuh"

namespace mixtune::cuda {

namespace {

template <int PerLane>
__global__ void __launch_bounds__(kRouterThreads)
    z_kernel(const float* __restrict__ logits, float* __restrict__ dlogits, double* __restrict__ squares, int64_t live,
             int experts, float scale) {
  const int64_t t = int64_t{blockIdx.x} * kRouterWarps + threadIdx.x / kWarp;
  if (t >= live) return;
  const Row<PerLane> row(logits + t * experts, experts);
  const float lse = row.log_sum_exp();
  const float factor = 2 * scale * lse;
  if (threadIdx.x % kWarp == 0) squares[t] = double{lse} * double{lse};
#pragma unroll
  for (int i = 0; i < PerLane; ++i)
    if (row.expert(i) < experts) dlogits[t * experts + row.expert(i)] += factor * expf(row.logits[i] - lse);
}

// A block for each document: prob_grad [D, E].
__global__ void __launch_bounds__(kRouterThreads)
    count_kernel(const int32_t* __restrict__ chosen, const int32_t* __restrict__ doc_offsets,
                 double* __restrict__ prob_grad, int experts, int k) {
  __shared__ int counts[kMaxGpuExperts];
  for (int e = threadIdx.x; e < experts; e += kRouterThreads) counts[e] = 0;
  __syncthreads();
  const int64_t begin = doc_offsets[blockIdx.x], end = doc_offsets[blockIdx.x + 1];
  for (int64_t pair = begin * k + threadIdx.x; pair < end * k; pair += kRouterThreads)
    atomicAdd(counts + chosen[pair], 1);
  __syncthreads();
  const double tokens = static_cast<double>(end - begin), factor = experts / (k * tokens * tokens);
  for (int e = threadIdx.x; e < experts; e += kRouterThreads)
    prob_grad[int64_t{blockIdx.x} * experts + e] = factor * counts[e];
}

// The last document that begins at or before token t.
__device__ int document_of(const int32_t* doc_offsets, int documents, int64_t t) {
  int low = 0, high = documents;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (doc_offsets[middle] <= t ? low : high) = middle;
  }
  return low;
}

template <int PerLane, bool sigmoid>
__global__ void __launch_bounds__(kRouterThreads)
    sequence_kernel(const float* __restrict__ logits, const int32_t* __restrict__ doc_offsets,
                    const double* __restrict__ prob_grad, float* __restrict__ dlogits, double* __restrict__ losses,
                    int64_t live, int documents, int experts, double scale) {
  const int64_t t = int64_t{blockIdx.x} * kRouterWarps + threadIdx.x / kWarp;
  if (t >= live) return;
  const double* from = prob_grad + int64_t{document_of(doc_offsets, documents, t)} * experts;
  const Row<PerLane> row(logits + t * experts, experts);
  float p[PerLane], g[PerLane], mean = 0;
  double loss = 0;
  constexpr Scoring kScoring = sigmoid ? Scoring::kSigmoid : Scoring::kSoftmax;
  row.template probabilities<kScoring>(p);
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    const double own = row.expert(i) < experts ? from[row.expert(i)] : 0;
    loss += own * p[i];
    g[i] = static_cast<float>(scale * own);
    mean += p[i] * g[i];
  }
  mean = warp_sum(mean);
  loss = warp_sum(loss);
  if (threadIdx.x % kWarp == 0) losses[t] = loss;
#pragma unroll
  for (int i = 0; i < PerLane; ++i)
    if (row.expert(i) < experts)
      dlogits[t * experts + row.expert(i)] += p[i] * (g[i] - mean) * slope<kScoring>(row.logits[i]);
}

}  // namespace

void router_z_loss(Ctx& ctx, const RouterZLoss& args, const Tensor& squares) {
  const int64_t experts = args.logits.shape[1];
  on_experts(experts, 1, [&](auto per_lane) {
    const auto blocks = static_cast<unsigned>(ceil_div(args.live, kRouterWarps));
    z_kernel<per_lane><<<blocks, kRouterThreads, 0, ctx.gpu->stream()>>>(
        args.logits.as<float>(), args.dlogits.as<float>(), squares.as<double>(), args.live, static_cast<int>(experts),
        static_cast<float>(args.scale));
    check_cuda(cudaGetLastError(), "router z_kernel");
  });
}

void router_sequence_loss(Ctx& ctx, const RouterSequenceLoss& args, const RouterSequenceScratch& scratch) {
  const int64_t documents = scratch.prob_grad.rows(), experts = args.logits.shape[1], k = args.experts.shape[1];
  const auto* offsets = args.doc_offsets.as<int32_t>();
  on_experts(experts, k, [&](auto per_lane) {
    count_kernel<<<static_cast<unsigned>(documents), kRouterThreads, 0, ctx.gpu->stream()>>>(
        args.experts.as<int32_t>(), offsets, scratch.prob_grad.as<double>(), static_cast<int>(experts),
        static_cast<int>(k));
    check_cuda(cudaGetLastError(), "router count_kernel");
    const auto blocks = static_cast<unsigned>(ceil_div(args.live, kRouterWarps));
    const auto kernel =
        args.scoring == Scoring::kSigmoid ? sequence_kernel<per_lane, true> : sequence_kernel<per_lane, false>;
    kernel<<<blocks, kRouterThreads, 0, ctx.gpu->stream()>>>(
        args.logits.as<float>(), offsets, scratch.prob_grad.as<double>(), args.dlogits.as<float>(),
        scratch.losses.as<double>(), args.live, static_cast<int>(documents), static_cast<int>(experts), args.scale);
    check_cuda(cudaGetLastError(), "router sequence_kernel");
  });
}

}  // namespace mixtune::cuda
