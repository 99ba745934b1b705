// Attention over a cache on a GPU. A block takes a token, up to kHeads query heads of one key-value head, and a share
// of the keys that they see, kThreads keys at a time: a thread scores one of them for all the heads. The shares' sums
// are joined by a second kernel, in the order of the shares.
#include <algorithm>
#include <cmath>

#include "kernels/attention/cuda_ops.h"
#include "kernels/cuda_pack.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp, kHeads = 8, kMostShares = 64;
constexpr int kColumns = kMaxGpuHeadDim / kThreads;  // of a head, that a thread sums up

template <class S>
struct CacheRead {
  const S *qkv, *keys, *values;
  const int32_t *sequences, *positions;
  int64_t width, room, window;
  int q_heads, kv_heads, dim, shares;
  float scale;
  float* sums;  // [live, q_heads, shares, dim + 2]: weighted values, the highest score, the sum of weights
  S* out;

  __device__ int group() const { return q_heads / kv_heads; }
};

struct Keys {
  int64_t begin, end;
};

// The share blockIdx.z of the keys that the token at `position` sees.
template <class S>
__device__ Keys keys_of_share(const CacheRead<S>& a, int64_t position) {
  const int64_t first = a.window > 0 ? max(int64_t{0}, position - a.window + 1) : 0;
  const int64_t each = ceil_div(position + 1 - first, a.shares);
  const int64_t begin = first + blockIdx.z * each;
  return {begin, min(begin + each, position + 1)};
}

// Writes the scores of the thread's key for all heads.
template <class S, int Width>
__device__ void score_key(const S* key, const float* queries, int dim, float (&scores)[kHeads][kThreads]) {
  float score[kHeads] = {};
  for (int i = 0; i < dim; i += Width) {
    const auto k = load<Width>(key + i);
#pragma unroll
    for (int h = 0; h < kHeads; ++h)
#pragma unroll
      for (int j = 0; j < Width; ++j) score[h] += queries[h * dim + i + j] * k[j];
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) scores[h][threadIdx.x] = score[h];
}

// What has been seen of each head: the highest score, the sum of weights, and by what former sums are multiplied.
struct Seen {
  float highest[kHeads], total[kHeads], correction[kHeads];
};

// Turns the scores of `count` keys into weights. A warp takes every kWarps-th head.
__device__ void weigh_keys(float (&scores)[kHeads][kThreads], int count, Seen& seen) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int h = static_cast<int>(threadIdx.x) / kWarp; h < kHeads; h += kWarps) {
    const float former = seen.highest[h];
    float highest = former, total = 0;
    for (int j = lane; j < count; j += kWarp) highest = fmaxf(highest, scores[h][j]);
    highest = warp_max(highest);
    for (int j = lane; j < count; j += kWarp) total += scores[h][j] = expf(scores[h][j] - highest);
    total = warp_sum(total);
    if (lane > 0) continue;
    const float correction = expf(former - highest);
    seen.highest[h] = highest;
    seen.total[h] = seen.total[h] * correction + total;
    seen.correction[h] = correction;
  }
}

// The weighted values of a share, kColumns columns of a head in a thread.
struct ValueSums {
  float of[kHeads][kColumns] = {};
};

template <class S>
__device__ void add_values(const S* values, int count, int dim, const float (&weights)[kHeads][kThreads],
                           const Seen& seen, ValueSums& sums) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int column = static_cast<int>(threadIdx.x) + c * kThreads;
    if (column >= dim) continue;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) sums.of[h][c] *= seen.correction[h];
    for (int j = 0; j < count; ++j) {
      const float v = to_float(values[static_cast<int64_t>(j) * dim + column]);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sums.of[h][c] += weights[h][j] * v;
    }
  }
}

// Writes the sums of the first `heads` heads, each `stride` behind the other.
__device__ void write_share(const ValueSums& sums, const Seen& seen, int heads, int dim, int64_t stride, float* to) {
#pragma unroll
  for (int h = 0; h < kHeads; ++h, to += stride) {
    if (h >= heads) return;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int column = static_cast<int>(threadIdx.x) + c * kThreads;
      if (column < dim) to[column] = sums.of[h][c];
    }
    if (threadIdx.x == 0) to[dim] = seen.highest[h], to[dim + 1] = seen.total[h];
  }
}

// Grid: tokens, parts of kHeads heads of each key-value head, shares.
template <class S, int Width>
__global__ void __launch_bounds__(kThreads) share_kernel(CacheRead<S> a) {
  extern __shared__ float queries[];  // [kHeads, dim], scaled
  __shared__ float scores[kHeads][kThreads];
  __shared__ Seen seen;
  const int thread = static_cast<int>(threadIdx.x), parts = static_cast<int>(gridDim.y) / a.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.y) / parts, first = static_cast<int>(blockIdx.y) % parts * kHeads;
  const int heads = min(kHeads, a.group() - first);
  const int64_t token = blockIdx.x, head = static_cast<int64_t>(kv_head) * a.group() + first;
  const int64_t cached = (static_cast<int64_t>(a.sequences[token]) * a.kv_heads + kv_head) * a.room * a.dim;
  const Keys share = keys_of_share(a, a.positions[token]);
  for (int i = thread; i < kHeads * a.dim; i += kThreads)
    queries[i] = i < heads * a.dim ? to_float(a.qkv[token * a.width + head * a.dim + i]) * a.scale : 0;
  if (thread < kHeads) seen.highest[thread] = -INFINITY, seen.total[thread] = 0;
  ValueSums sums;
  __syncthreads();

  for (int64_t begin = share.begin; begin < share.end; begin += kThreads) {
    const int count = static_cast<int>(min(int64_t{kThreads}, share.end - begin));
    const int64_t place = cached + begin * a.dim;
    if (thread < count) score_key<S, Width>(a.keys + place + thread * a.dim, queries, a.dim, scores);
    __syncthreads();
    weigh_keys(scores, count, seen);
    __syncthreads();
    add_values(a.values + place, count, a.dim, scores, seen, sums);
    __syncthreads();
  }
  const int64_t size = a.dim + 2, stride = a.shares * size;
  write_share(sums, seen, heads, a.dim, stride, a.sums + (token * a.q_heads + head) * stride + blockIdx.z * size);
}

// Grid: tokens, query heads. A share that has no key has the highest score -inf.
template <class S>
__global__ void __launch_bounds__(kThreads) join_kernel(CacheRead<S> a) {
  const int64_t token = blockIdx.x, head = blockIdx.y, stride = a.dim + 2;
  const float* shares = a.sums + (token * a.q_heads + head) * a.shares * stride;
  float highest = -INFINITY, total = 0;
  for (int s = 0; s < a.shares; ++s) highest = fmaxf(highest, shares[s * stride + a.dim]);
  for (int s = 0; s < a.shares; ++s)
    total += shares[s * stride + a.dim + 1] * expf(shares[s * stride + a.dim] - highest);
  for (int column = static_cast<int>(threadIdx.x); column < a.dim; column += kThreads) {
    float sum = 0;
    for (int s = 0; s < a.shares; ++s) sum += shares[s * stride + column] * expf(shares[s * stride + a.dim] - highest);
    a.out[(token * a.q_heads + head) * a.dim + column] = from_float<S>(sum / total);
  }
}

// Enough blocks for every multiprocessor, where there are keys for them.
int64_t shares_of(const Gpu& gpu, int64_t blocks, int64_t keys) {
  const int64_t wanted = ceil_div(int64_t{4} * gpu.multiprocessors(), std::max<int64_t>(blocks, 1));
  return std::clamp<int64_t>(std::min(wanted, ceil_div(keys, kThreads)), 1, kMostShares);
}

// A block for each token.
template <class S>
__global__ void __launch_bounds__(kThreads) append_kernel(CacheRead<S> a, S* keys, S* values) {
  const int64_t token = blockIdx.x, size = static_cast<int64_t>(a.kv_heads) * a.dim;
  const S* v = a.qkv + (token + 1) * a.width - size;
  const S* k = v - size;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const int64_t head = static_cast<int64_t>(a.sequences[token]) * a.kv_heads + i / a.dim;
    const int64_t place = (head * a.room + a.positions[token]) * a.dim + i % a.dim;
    keys[place] = k[i];
    values[place] = v[i];
  }
}

template <class S>
CacheRead<S> cache_read(const CachedTokens& tokens, int64_t window) {
  const int64_t dim = tokens.keys.shape[3], kv_heads = tokens.keys.shape[1], width = tokens.qkv.shape[1];
  return {.qkv = elements<S>(tokens.qkv),
          .keys = elements<S>(tokens.keys),
          .values = elements<S>(tokens.values),
          .sequences = elements<int32_t>(tokens.sequences),
          .positions = elements<int32_t>(tokens.positions),
          .width = width,
          .room = tokens.keys.shape[2],
          .window = window,
          .q_heads = static_cast<int>(width / dim - 2 * kv_heads),
          .kv_heads = static_cast<int>(kv_heads),
          .dim = static_cast<int>(dim),
          .shares = 1,
          .scale = 1 / std::sqrt(static_cast<float>(dim)),
          .sums = nullptr,
          .out = nullptr};
}

}  // namespace

void append_to_cache(Ctx& ctx, const CachedTokens& tokens) {
  if (tokens.live == 0) return;
  on_dtype(tokens.qkv.dtype, [&]<class S>(S) {
    append_kernel<S><<<tokens.live, kThreads, 0, ctx.gpu->stream()>>>(
        cache_read<S>(tokens, 0), elements<S>(tokens.keys), elements<S>(tokens.values));
  });
  check_cuda(cudaGetLastError(), "append_kernel");
}

void cached_attention(Ctx& ctx, const CachedTokens& tokens, int64_t window, const Tensor& out) {
  if (tokens.live == 0) return;
  MT_CHECK(tokens.keys.shape[3] <= kMaxGpuHeadDim);
  const Stack::Frame frame(ctx.stack);
  on_dtype(tokens.qkv.dtype, [&]<class S>(S) {
    CacheRead<S> a = cache_read<S>(tokens, window);
    const int64_t parts = a.kv_heads * ceil_div(a.q_heads / a.kv_heads, kHeads);
    a.shares =
        static_cast<int>(shares_of(*ctx.gpu, tokens.live * parts, window > 0 ? std::min(window, a.room) : a.room));
    const Tensor sums = ctx.stack.push("attention sums", {tokens.live, a.q_heads, a.shares, a.dim + 2}, DType::kF32);
    a.sums = elements<float>(sums);
    a.out = elements<S>(out);
    const dim3 grid(tokens.live, parts, a.shares);
    const size_t shared = kHeads * a.dim * sizeof(float);
    on_width<S>(packs_fit<S>(a.dim, tokens.keys),
                [&](auto width) { share_kernel<S, width()><<<grid, kThreads, shared, ctx.gpu->stream()>>>(a); });
    check_cuda(cudaGetLastError(), "share_kernel");
    join_kernel<S><<<dim3(tokens.live, a.q_heads), kThreads, 0, ctx.gpu->stream()>>>(a);
    check_cuda(cudaGetLastError(), "join_kernel");
  });
}

}  // namespace mixtune::cuda
