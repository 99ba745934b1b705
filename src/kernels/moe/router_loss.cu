// One block computes a loss: there are only L * E counts.
#include "kernels/cuda_math.cuh"
#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    huggingface_kernel(const double* __restrict__ stats, double* __restrict__ prob_grad, double* __restrict__ loss,
                       int layers, int experts, double tokens, double scale) {
  const double pooled = layers * tokens;
  double sum = 0;
  for (int e = threadIdx.x; e < experts; e += kThreads) {
    double count = 0, probability = 0;
    for (int l = 0; l < layers; ++l) {
      count += stats[2 * l * experts + e];
      probability += stats[(2 * l + 1) * experts + e];
    }
    const double f = count / pooled;
    sum += experts * f * probability / pooled;
    for (int l = 0; l < layers; ++l) prob_grad[l * experts + e] = scale * experts * f / pooled;
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *loss += sum;
}

// kSwitch; with counts [L, E], kGlobal.
struct LayerLosses {
  const double* stats;
  double *counts, *prob_grad, *loss;
  int layers, experts;
  double factor, tokens, counted_tokens, scale;  // factor: E / k
  bool accumulate;
};

__global__ void __launch_bounds__(kThreads) layer_kernel(const LayerLosses args) {
  double sum = 0;
  for (int i = threadIdx.x; i < args.layers * args.experts; i += kThreads) {
    const int l = i / args.experts, e = i % args.experts;
    const double* n = args.stats + 2 * l * args.experts + e;
    double count = *n;
    if (args.counts != nullptr) args.counts[i] = count += args.counts[i];
    const double gradient = args.factor * count / args.counted_tokens / args.tokens;
    args.prob_grad[i] = (args.accumulate ? args.prob_grad[i] : 0) + args.scale * gradient;
    sum += gradient * n[args.experts];
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *args.loss += sum;
}

void layer_losses(Ctx& ctx, const RouterLoss& args) {
  const int64_t layers = args.stats.shape[0], experts = args.stats.shape[2];
  const bool global = args.type == RouterLossType::kGlobal;
  layer_kernel<<<1, kThreads, 0, ctx.gpu->stream()>>>(
      {.stats = args.stats.as<double>(),
       .counts = global ? args.counts.as<double>() : nullptr,
       .prob_grad = args.prob_grad.as<double>(),
       .loss = args.loss.as<double>(),
       .layers = static_cast<int>(layers),
       .experts = static_cast<int>(experts),
       .factor = static_cast<double>(experts) / static_cast<double>(args.experts_per_token),
       .tokens = static_cast<double>(args.tokens),
       .counted_tokens = static_cast<double>(global ? args.counted_tokens : args.tokens),
       .scale = args.scale,
       .accumulate = args.accumulate});
  check_cuda(cudaGetLastError(), "router_loss layer_kernel");
}

}  // namespace

void router_loss(Ctx& ctx, const RouterLoss& args) {
  if (args.type != RouterLossType::kHuggingface) return layer_losses(ctx, args);
  huggingface_kernel<<<1, kThreads, 0, ctx.gpu->stream()>>>(
      args.stats.as<double>(), args.prob_grad.as<double>(), args.loss.as<double>(),
      static_cast<int>(args.stats.shape[0]), static_cast<int>(args.stats.shape[2]), static_cast<double>(args.tokens),
      args.scale);
  check_cuda(cudaGetLastError(), "router_loss huggingface_kernel");
}

}  // namespace mixtune::cuda
