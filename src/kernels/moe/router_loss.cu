// One block computes the loss: there are only L * E counts.
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

}  // namespace

void router_loss(Ctx& ctx, const RouterLoss& args) {
  huggingface_kernel<<<1, kThreads, 0, ctx.gpu->stream()>>>(
      args.stats.as<double>(), args.prob_grad.as<double>(), args.loss.as<double>(),
      static_cast<int>(args.stats.shape[0]), static_cast<int>(args.stats.shape[2]), static_cast<double>(args.tokens),
      args.scale);
  check_cuda(cudaGetLastError(), "router_loss huggingface_kernel");
}

}  // namespace mixtune::cuda
