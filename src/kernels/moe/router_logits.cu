// The router's projection and its backward: products with one long and two short sides, so each reads x or dx at the
// speed of memory, once for every kExperts experts; the weight comes from the caches.
#include "kernels/cuda_pack.cuh"
#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kLogitsThreads = 128, kLogitsWarps = kLogitsThreads / kWarp;

// A tile of logits has an element for each lane of a warp.
constexpr int kTokens = 4, kExperts = 8;
static_assert(kTokens * kExperts == kWarp);

// Lane i gets the sum of x[i] over all lanes. Each round a lane gives half of what it holds away, for the other half.
template <int Half = kWarp / 2>
__device__ float transposed_sum(const float (&x)[2 * Half]) {
  const bool upper = threadIdx.x & Half;
  float sums[Half];
#pragma unroll
  for (int i = 0; i < Half; ++i)
    sums[i] = (upper ? x[i + Half] : x[i]) + __shfl_xor_sync(~0u, upper ? x[i] : x[i + Half], Half);
  if constexpr (Half == 1)
    return sums[0];
  else
    return transposed_sum<Half / 2>(sums);
}

// A warp makes kTokens rows of logits, its lanes side by side along the columns. Past the ends of tokens and experts
// the last one is read again, and not written.
template <int V, class S>
__global__ void __launch_bounds__(kLogitsThreads, 4)
    logits_kernel(const S* __restrict__ x, const S* __restrict__ weight, float* __restrict__ logits, int64_t tokens,
                  int experts, int columns) {
  const int lane = threadIdx.x % kWarp;
  const int64_t first = (int64_t{blockIdx.x} * kLogitsWarps + threadIdx.x / kWarp) * kTokens;
  if (first >= tokens) return;
  const int here = static_cast<int>(min(int64_t{kTokens}, tokens - first));
  x += first * columns;
  for (int tile = 0; tile < experts; tile += kExperts) {
    float sums[kTokens * kExperts] = {};
    for (int c = lane * V; c < columns; c += kWarp * V) {
      Pack<S, V> xs[kTokens];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) xs[t] = load<V>(x + min(t, here - 1) * columns + c);
#pragma unroll
      for (int j = 0; j < kExperts; ++j) {
        const auto w = load<V>(weight + min(tile + j, experts - 1) * columns + c);
#pragma unroll
        for (int t = 0; t < kTokens; ++t)
#pragma unroll
          for (int v = 0; v < V; ++v) sums[t * kExperts + j] += xs[t][v] * w[v];
      }
    }
    const float logit = transposed_sum(sums);
    const int t = lane / kExperts, e = tile + lane % kExperts;
    if (t < here && e < experts) logits[(first + t) * experts + e] = logit;
  }
}

// dx += dlogits weight: a thread adds to kTokens rows of V columns.
template <int V, class S>
__global__ void __launch_bounds__(kThreads, 3)
    dx_kernel(const float* __restrict__ dlogits, const S* __restrict__ weight, S* __restrict__ dx, int64_t tokens,
              int experts, int columns) {
  const int c = (blockIdx.y * kThreads + threadIdx.x) * V;
  const int64_t first = int64_t{blockIdx.x} * kTokens;
  if (c >= columns) return;
  const int here = static_cast<int>(min(int64_t{kTokens}, tokens - first));
  dlogits += first * experts;
  dx += first * columns + c;
  Pack<S, V> rows[kTokens];
#pragma unroll
  for (int t = 0; t < kTokens; ++t) rows[t] = load<V>(dx + min(t, here - 1) * columns);
  float sums[kTokens][V] = {};
#pragma unroll 4
  for (int e = 0; e < experts; ++e) {
    const auto w = load<V>(weight + e * columns + c);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float g = dlogits[min(t, here - 1) * experts + e];
#pragma unroll
      for (int v = 0; v < V; ++v) sums[t][v] += g * w[v];
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int v = 0; v < V; ++v) rows[t].set(v, rows[t][v] + sums[t][v]);
    if (t < here) store(dx + t * columns, rows[t]);
  }
}

// partial[split, e, c] = the sum over the split's tokens of dlogits[t, e] x[t, c]: a thread keeps V columns of kExperts
// experts.
template <int V, class S>
__global__ void __launch_bounds__(kThreads, 2)
    dweight_partial_kernel(const float* __restrict__ dlogits, const S* __restrict__ x, float* __restrict__ partial,
                           int64_t tokens, int64_t split_tokens, int experts, int columns) {
  const int c = (blockIdx.x * kThreads + threadIdx.x) * V, tile = blockIdx.z * kExperts;
  if (c >= columns) return;
  const int64_t begin = blockIdx.y * split_tokens;
  const int here = static_cast<int>(min(split_tokens, tokens - begin));
  x += begin * columns + c;
  dlogits += begin * experts;
  float sums[kExperts][V] = {};
#pragma unroll 4
  for (int t = 0; t < here; ++t, x += columns, dlogits += experts) {
    const auto xs = load<V>(x);
#pragma unroll
    for (int j = 0; j < kExperts; ++j) {
      const float g = dlogits[min(tile + j, experts - 1)];
#pragma unroll
      for (int v = 0; v < V; ++v) sums[j][v] += g * xs[v];
    }
  }
#pragma unroll
  for (int j = 0; j < kExperts; ++j)
    if (tile + j < experts)
#pragma unroll
      for (int v = 0; v < V; ++v) partial[(int64_t{blockIdx.y} * experts + tile + j) * columns + c + v] = sums[j][v];
}

// dweight = or += the partial sums, in the order of splits.
template <class D>
__global__ void __launch_bounds__(kThreads) dweight_kernel(const float* __restrict__ partial, D* __restrict__ dweight,
                                                           int64_t elements, int splits, bool accumulate) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= elements) return;
  float sum = 0;
#pragma unroll 16
  for (int s = 0; s < splits; ++s) sum += partial[s * elements + i];
  if (accumulate) sum += to_float(dweight[i]);
  dweight[i] = from_float<D>(sum);
}

unsigned blocks(int64_t work, int64_t of_block) {
  return static_cast<unsigned>(ceil_div(work, of_block));
}

template <class S>
void add_dx(const RouterLogitsBackward& args, cudaStream_t stream) {
  const auto experts = static_cast<int>(args.weight.rows()), columns = static_cast<int>(args.x.shape[1]);
  const bool fit = packs_fit<S>(columns, args.dx, args.weight);
  on_width<S>(fit, [&](auto width) {
    const dim3 grid(blocks(args.x.rows(), kTokens), blocks(columns, kThreads * width));
    dx_kernel<width><<<grid, kThreads, 0, stream>>>(args.dlogits.as<float>(), elements<S>(args.weight),
                                                    elements<S>(args.dx), args.x.rows(), experts, columns);
    check_cuda(cudaGetLastError(), "router dx_kernel");
  });
}

// Splits of tokens: enough for two blocks on every multiprocessor at Mixtral's width. Constant, so that the sums do not
// depend on the device.
constexpr int64_t kSplits = 128;

template <class S>
void make_dweight(Ctx& ctx, const RouterLogitsBackward& args, cudaStream_t stream) {
  const int64_t tokens = args.x.rows(), split_tokens = std::max<int64_t>(1, ceil_div(tokens, kSplits));
  const int64_t splits = ceil_div(tokens, split_tokens);
  const auto experts = static_cast<int>(args.weight.rows()), columns = static_cast<int>(args.x.shape[1]);
  const Stack::Frame frame(ctx.stack);
  const Tensor partial = ctx.stack.push("router weight gradient, partial", {splits, experts, columns}, DType::kF32);
  if (splits > 0)
    on_width<S>(packs_fit<S>(columns, args.x), [&](auto width) {
      const dim3 grid(blocks(columns, kThreads * width), static_cast<unsigned>(splits), blocks(experts, kExperts));
      dweight_partial_kernel<width><<<grid, kThreads, 0, stream>>>(
          args.dlogits.as<float>(), elements<S>(args.x), partial.as<float>(), tokens, split_tokens, experts, columns);
      check_cuda(cudaGetLastError(), "router dweight_partial_kernel");
    });
  on_dtype(args.dweight.dtype, [&]<class D>(D) {
    const int64_t size = args.dweight.elements();
    dweight_kernel<<<blocks(size, kThreads), kThreads, 0, stream>>>(partial.as<float>(), elements<D>(args.dweight),
                                                                    size, static_cast<int>(splits), args.accumulate);
    check_cuda(cudaGetLastError(), "router dweight_kernel");
  });
}

}  // namespace

void router_logits(Ctx& ctx, const Tensor& x, const Tensor& weight, const Tensor& logits) {
  const int64_t tokens = x.rows();
  if (tokens == 0) return;
  const auto experts = static_cast<int>(weight.rows()), columns = static_cast<int>(x.shape[1]);
  on_dtype(x.dtype, [&]<class S>(S) {
    on_width<S>(packs_fit<S>(columns, x, weight), [&](auto width) {
      logits_kernel<width><<<blocks(tokens, kLogitsWarps * kTokens), kLogitsThreads, 0, ctx.gpu->stream()>>>(
          elements<S>(x), elements<S>(weight), logits.as<float>(), tokens, experts, columns);
      check_cuda(cudaGetLastError(), "logits_kernel");
    });
  });
}

void router_logits_backward(Ctx& ctx, const RouterLogitsBackward& args) {
  on_dtype(args.x.dtype, [&]<class S>(S) {
    if (args.x.rows() > 0) add_dx<S>(args, ctx.gpu->stream());
    if (args.dweight) make_dweight<S>(ctx, args, ctx.gpu->stream());
  });
}

}  // namespace mixtune::cuda
