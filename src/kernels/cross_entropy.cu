// Cross-entropy on a GPU: a block for each row of logits, held in registers and so read once; rows that do not fit, or
// do not come in packs, are read again instead (any_kernel).
#include "kernels/cuda_ops.h"
#include "kernels/cuda_pack.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kWidth = kVector<float>;
constexpr int kPacks = 8;                   // in each thread, of a row
constexpr int kNarrow = 128, kWide = 1024;  // threads

template <class S>
struct Rows {
  const float* logits;
  const int32_t* targets;
  const float* weights;  // null: each is 1
  double* losses;
  S* dlogits;  // null: not wanted; may be logits
  float scale;
  int columns;  // V

  __device__ float weight() const { return weights ? weights[blockIdx.x] : 1; }
  // A product that is never fused with what follows, so that a weight of 1 changes no bit.
  __device__ float weighted_scale(float weight) const { return __fmul_rn(scale, weight); }
};

// The block's sum: fp32 within a thread's few dozen exponentials, fp64 beyond. The loss is good to fp32's last place.
template <int Threads>
__device__ double row_sum(float sum) {
  return block_sum<Threads>(static_cast<double>(sum));
}

template <class S, int Threads>
__global__ void __launch_bounds__(Threads) row_kernel(Rows<S> a) {
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.columns;
  const int target = a.targets[blockIdx.x];
  const float target_logit = a.logits[start + target], weight = a.weight();
  Pack<float, kWidth> x[kPacks];
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
    if (i < a.columns)
      x[p] = load<kWidth>(a.logits + start + i);
    else
      x[p] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  }
  float highest = -INFINITY;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) highest = fmaxf(highest, x[p].x[k]);
  highest = block_max<Threads>(highest);
  float sum = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum += x[p].x[k] = expf(x[p].x[k] - highest);
  const double total = row_sum<Threads>(sum);
  if (threadIdx.x == 0)
    a.losses[blockIdx.x] =
        (log(total) + static_cast<double>(highest) - static_cast<double>(target_logit)) * static_cast<double>(weight);
  if (!a.dlogits) return;
  const float scale = a.weighted_scale(weight), factor = scale / static_cast<float>(total);
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int i = (p * Threads + static_cast<int>(threadIdx.x)) * kWidth;
    if (i >= a.columns) break;
    Pack<S, kWidth> gradient;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) gradient.set(k, x[p].x[k] * factor - (i + k == target ? scale : 0));
    store(a.dlogits + start + i, gradient);
  }
}

template <class S>
__global__ void __launch_bounds__(kWide) any_kernel(Rows<S> a) {
  const int64_t start = static_cast<int64_t>(blockIdx.x) * a.columns;
  const float* logits = a.logits + start;
  const int target = a.targets[blockIdx.x];
  const float target_logit = logits[target], weight = a.weight();
  float highest = -INFINITY;
  for (int i = threadIdx.x; i < a.columns; i += kWide) highest = fmaxf(highest, logits[i]);
  highest = block_max<kWide>(highest);
  float sum = 0;
  for (int i = threadIdx.x; i < a.columns; i += kWide) sum += expf(logits[i] - highest);
  const double total = row_sum<kWide>(sum);
  if (threadIdx.x == 0)
    a.losses[blockIdx.x] =
        (log(total) + static_cast<double>(highest) - static_cast<double>(target_logit)) * static_cast<double>(weight);
  if (!a.dlogits) return;
  const float scale = a.weighted_scale(weight), factor = scale / static_cast<float>(total);
  for (int i = threadIdx.x; i < a.columns; i += kWide)
    a.dlogits[start + i] = from_float<S>(expf(logits[i] - highest) * factor - (i == target ? scale : 0));
}

template <class S>
void launch(Ctx& ctx, const CrossEntropy& args) {
  const Rows<S> a{.logits = elements<float>(args.logits),
                  .targets = elements<int32_t>(args.targets),
                  .weights = elements<float>(args.weights),
                  .losses = elements<double>(args.losses),
                  .dlogits = elements<S>(args.dlogits),
                  .scale = static_cast<float>(args.scale),
                  .columns = static_cast<int>(args.logits.shape[1])};
  const int64_t rows = args.logits.rows();
  const bool fit = packs_fit<float>(a.columns, args.logits, args.dlogits);
  const cudaStream_t stream = ctx.gpu->stream();
  if (fit && a.columns <= kNarrow * kPacks * kWidth)
    row_kernel<S, kNarrow><<<rows, kNarrow, 0, stream>>>(a);
  else if (fit && a.columns <= kWide * kPacks * kWidth)
    row_kernel<S, kWide><<<rows, kWide, 0, stream>>>(a);
  else
    any_kernel<S><<<rows, kWide, 0, stream>>>(a);
}

}  // namespace

void cross_entropy(Ctx& ctx, const CrossEntropy& args) {
  if (args.logits.rows() == 0) return;
  on_dtype(args.dlogits ? args.dlogits.dtype : DType::kF32, [&]<class S>(S) { launch<S>(ctx, args); });
  check_cuda(cudaGetLastError(), "cross_entropy_kernel");
}

}  // namespace mixtune::cuda
