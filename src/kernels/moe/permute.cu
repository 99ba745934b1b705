// Tokens to rows and back. The map is made by prefix sums, so that it is the CPU's; the rest is copies.
#include "kernels/cuda_pack.cuh"
#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// The map, in three steps over tiles of consecutive pairs (token, slot), one block each: the pairs of each expert in
// each tile; their prefix sums over tiles, and the experts' begins over experts; and, tile by tile again, each pair's
// row.
constexpr int kLanePairs = 8;
constexpr int kTilePairs = kThreads * kLanePairs;

// A warp's part of its block's tile: pair first + i * kWarp at i. -1 past the end.
struct WarpPairs {
  int64_t first;
  int32_t expert[kLanePairs];

  __device__ WarpPairs(const int32_t* experts, int64_t pairs) {
    first = int64_t{blockIdx.x} * kTilePairs + threadIdx.x / kWarp * kWarp * kLanePairs + threadIdx.x % kWarp;
#pragma unroll
    for (int i = 0; i < kLanePairs; ++i) {
      const int64_t pair = first + i * kWarp;
      expert[i] = pair < pairs ? experts[pair] : -1;
    }
  }

  // For each i, with all lanes: place(i, next[expert]++) as if pair by pair in their order; -1 for no expert. `next` is
  // the warp's own.
  template <class Place>
  __device__ void for_each(int32_t* next, const Place& place) const {
    const uint32_t lower = (1u << threadIdx.x % kWarp) - 1;
#pragma unroll
    for (int i = 0; i < kLanePairs; ++i) {
      const uint32_t same = __match_any_sync(~0u, expert[i]);
      const int rank = __popc(same & lower);
      const bool placed = expert[i] >= 0;
      place(i, placed ? next[expert[i]] + rank : -1);
      __syncwarp();
      if (placed && rank == 0) next[expert[i]] += __popc(same);
      __syncwarp();
    }
  }
};

// next [kWarps, experts], in shared memory, = each warp's pairs of each expert.
__device__ void count_pairs(const WarpPairs& mine, int32_t* next, int experts) {
  for (int i = threadIdx.x; i < kWarps * experts; i += kThreads) next[i] = 0;
  __syncthreads();
  mine.for_each(next + threadIdx.x / kWarp * experts, [](int, int32_t) {});
  __syncthreads();
}

// counts[tile, e] = the tile's pairs of expert e.
__global__ void __launch_bounds__(kThreads)
    map_count_kernel(const int32_t* __restrict__ experts, int64_t pairs, int32_t* __restrict__ counts, int n_experts) {
  extern __shared__ int32_t next[];
  const WarpPairs mine(experts, pairs);
  count_pairs(mine, next, n_experts);
  for (int e = threadIdx.x; e < n_experts; e += kThreads) {
    int32_t sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += next[w * n_experts + e];
    counts[int64_t{blockIdx.x} * n_experts + e] = sum;
  }
}

// The sum of x over lower lanes and of `total`, which goes up by the sum over all lanes.
__device__ int32_t warp_scan(int32_t x, int32_t& total) {
  const int lane = threadIdx.x % kWarp;
  int32_t sum = x;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int32_t left = __shfl_up_sync(~0u, sum, distance);
    if (lane >= distance) sum += left;
  }
  const int32_t before = total + sum - x;
  total += __shfl_sync(~0u, sum, kWarp - 1);
  return before;
}

// One block. counts [tiles, E] becomes the pairs of expert e in tiles before; row `tiles` of it is begin. begin and
// count are the host's. padded > 0: every expert has so many rows.
constexpr int kScanThreads = 1024;
__global__ void __launch_bounds__(kScanThreads) map_scan_kernel(int32_t* __restrict__ counts, int tiles, int experts,
                                                                int32_t padded, int32_t* begin, int32_t* count) {
  extern __shared__ int32_t totals[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int e = warp; e < experts; e += kScanThreads / kWarp) {
    int32_t total = 0;
    for (int first = 0; first < tiles; first += kWarp) {
      int32_t* here = counts + int64_t{first + lane} * experts + e;
      const bool inside = first + lane < tiles;
      const int32_t before = warp_scan(inside ? *here : 0, total);
      if (inside) *here = before;
    }
    if (lane == 0) totals[e] = padded > 0 ? padded : total;
  }
  __syncthreads();
  if (warp > 0) return;
  int32_t rows = 0;
  for (int first = 0; first < experts; first += kWarp) {
    const int e = first + lane;
    const int32_t n = e < experts ? totals[e] : 0, row = warp_scan(static_cast<int32_t>(align_rows(n)), rows);
    if (e >= experts) continue;
    counts[int64_t{tiles} * experts + e] = row;
    if (begin == nullptr) continue;
    begin[e] = row;
    count[e] = n;
  }
}

__global__ void __launch_bounds__(kThreads)
    map_place_kernel(const int32_t* __restrict__ experts, int64_t pairs, const int32_t* __restrict__ before,
                     int n_experts, int32_t* __restrict__ row_of_slot) {
  extern __shared__ int32_t next[];
  const WarpPairs mine(experts, pairs);
  count_pairs(mine, next, n_experts);
  const int32_t* begin = before + int64_t{gridDim.x} * n_experts;
  for (int e = threadIdx.x; e < n_experts; e += kThreads) {
    int32_t row = begin[e] + before[int64_t{blockIdx.x} * n_experts + e];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int32_t n = next[w * n_experts + e];
      next[w * n_experts + e] = row;
      row += n;
    }
  }
  __syncthreads();
  mine.for_each(next + threadIdx.x / kWarp * n_experts, [&](int i, int32_t row) {
    const int64_t pair = mine.first + i * kWarp;
    if (pair < pairs) row_of_slot[pair] = row;
  });
}

__global__ void __launch_bounds__(kThreads)
    invert_kernel(const int32_t* __restrict__ row_of_slot, int64_t pairs, int32_t* __restrict__ slot_of_row) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < pairs && row_of_slot[i] >= 0) slot_of_row[row_of_slot[i]] = static_cast<int32_t>(i);
}

__global__ void __launch_bounds__(kThreads) number_rows_kernel(const int32_t* __restrict__ slot_of_row, int64_t first,
                                                               int64_t* __restrict__ numbers, int64_t rows) {
  const int64_t r = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (r < rows) numbers[r] = slot_of_row[r] < 0 ? -1 : first + slot_of_row[r];
}

// A warp copies a row, of `width` words.
template <class Word>
__global__ void __launch_bounds__(kThreads)
    permute_rows_kernel(const Word* __restrict__ x, const int32_t* __restrict__ slot_of_row, int k,
                        Word* __restrict__ rows, int64_t count, int width) {
  const int64_t r = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (r >= count) return;
  const int lane = threadIdx.x % kWarp;
  const int32_t slot = slot_of_row[r];
  rows += r * width;
  if (slot < 0) {
    for (int i = lane; i < width; i += kWarp) rows[i] = Word{};
    return;
  }
  x += int64_t{slot / k} * width;
#pragma unroll 4
  for (int i = lane; i < width; i += kWarp) rows[i] = x[i];
}

template <class S, int V>
__device__ void add(const Pack<S, V>& x, float (&sum)[V]) {
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] += x[v];
}

// A warp makes a token's row. residual may be y.
template <int V, class S>
__global__ void __launch_bounds__(kThreads)
    unpermute_rows_kernel(const S* __restrict__ rows, const int32_t* __restrict__ row_of_slot, int k, const S* residual,
                          S* y, int64_t tokens, int columns) {
  const int64_t t = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (t >= tokens) return;
  for (int c = threadIdx.x % kWarp * V; c < columns; c += kWarp * V) {
    float sum[V] = {};
    if (residual != nullptr) add(load<V>(residual + t * columns + c), sum);
#pragma unroll 2
    for (int slot = 0; slot < k; ++slot) {
      const int32_t row = row_of_slot[t * k + slot];
      if (row >= 0) add(load<V>(rows + int64_t{row} * columns + c), sum);
    }
    Pack<S, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.set(v, sum[v]);
    store(y + t * columns + c, pack);
  }
}

__global__ void __launch_bounds__(kThreads)
    gather_kernel(const float* __restrict__ in, const int32_t* __restrict__ index, float* __restrict__ out,
                  int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = index[i] < 0 ? 0 : in[index[i]];
}

unsigned blocks(int64_t work, int64_t of_block) {
  return static_cast<unsigned>(ceil_div(work, of_block));
}

// out[i] = in[index[i]], 0 where the index is -1.
void gather_scalars(Ctx& ctx, const Tensor& in, const Tensor& index, const Tensor& out) {
  const int64_t count = index.elements();
  if (count == 0) return;
  gather_kernel<<<blocks(count, kThreads), kThreads, 0, ctx.gpu->stream()>>>(in.as<float>(), index.as<int32_t>(),
                                                                             out.as<float>(), count);
  check_cuda(cudaGetLastError(), "gather_kernel");
}

// op(Word{}) for the widest word that rows of x and of `rows` are made of.
template <class Op>
void on_word(const Tensor& x, const Tensor& rows, Op&& op) {
  MT_CHECK(x.dtype == rows.dtype);
  const auto bits = static_cast<size_t>(x.shape[1]) * dtype_size(x.dtype) | reinterpret_cast<uintptr_t>(x.data) |
                    reinterpret_cast<uintptr_t>(rows.data);
  if (bits % sizeof(uint4) == 0) return op(uint4{});
  if (bits % sizeof(uint32_t) == 0) return op(uint32_t{});
  op(uint16_t{});
}

}  // namespace

void permute_map(Ctx& ctx, const PermuteMap& args) {
  const int64_t pairs = args.experts.elements();
  const auto experts = static_cast<int>(args.count.rows()), tiles = static_cast<int>(ceil_div(pairs, kTilePairs));
  // The host knows those of padded experts, and may use their memory for something else before a kernel runs.
  int32_t* const begin = args.limit.padded ? nullptr : args.begin.as<int32_t>();
  int32_t* const count = args.limit.padded ? nullptr : args.count.as<int32_t>();
  const Stack::Frame frame(ctx.stack);
  int32_t* counts = ctx.stack.push("pairs of tiles", {tiles + 1, experts}, DType::kI32).as<int32_t>();
  const size_t bytes = sizeof(int32_t) * experts;
  const cudaStream_t stream = ctx.gpu->stream();
  if (tiles > 0) {
    map_count_kernel<<<tiles, kThreads, kWarps * bytes, stream>>>(args.experts.as<int32_t>(), pairs, counts, experts);
    check_cuda(cudaGetLastError(), "map_count_kernel");
  }
  const int32_t padded = args.limit.padded ? static_cast<int32_t>(args.limit.most) : 0;
  map_scan_kernel<<<1, kScanThreads, bytes, stream>>>(counts, tiles, experts, padded, begin, count);
  check_cuda(cudaGetLastError(), "map_scan_kernel");
  if (tiles > 0) {
    map_place_kernel<<<tiles, kThreads, kWarps * bytes, stream>>>(args.experts.as<int32_t>(), pairs, counts, experts,
                                                                  args.row_of_slot.as<int32_t>());
    check_cuda(cudaGetLastError(), "map_place_kernel");
  }
}

void permute_invert(Ctx& ctx, const Tensor& row_of_slot, const Tensor& slot_of_row) {
  const int64_t pairs = row_of_slot.elements();
  if (slot_of_row.elements() == 0) return;
  check_cuda(cudaMemsetAsync(slot_of_row.data, 0xFF, slot_of_row.bytes(), ctx.gpu->stream()), "permute_invert");
  if (pairs == 0) return;
  invert_kernel<<<blocks(pairs, kThreads), kThreads, 0, ctx.gpu->stream()>>>(row_of_slot.as<int32_t>(), pairs,
                                                                             slot_of_row.as<int32_t>());
  check_cuda(cudaGetLastError(), "invert_kernel");
}

void number_rows(Ctx& ctx, const Tensor& slot_of_row, int64_t first, const Tensor& numbers) {
  const int64_t rows = numbers.rows();
  if (rows == 0) return;
  number_rows_kernel<<<blocks(rows, kThreads), kThreads, 0, ctx.gpu->stream()>>>(slot_of_row.as<int32_t>(), first,
                                                                                 numbers.as<int64_t>(), rows);
  check_cuda(cudaGetLastError(), "number_rows_kernel");
}

void permute_rows(Ctx& ctx, const Tensor& x, const Tensor& slot_of_row, int64_t k, const Tensor& rows) {
  const int64_t count = rows.rows();
  if (count == 0) return;
  on_word(x, rows, [&]<class Word>(Word) {
    const auto width = static_cast<int>(x.shape[1] * dtype_size(x.dtype) / sizeof(Word));
    permute_rows_kernel<<<blocks(count, kWarps), kThreads, 0, ctx.gpu->stream()>>>(
        static_cast<const Word*>(x.data), slot_of_row.as<int32_t>(), static_cast<int>(k), static_cast<Word*>(rows.data),
        count, width);
    check_cuda(cudaGetLastError(), "permute_rows_kernel");
  });
}

void unpermute_rows(Ctx& ctx, const Tensor& rows, const Tensor& row_of_slot, const Tensor& residual, const Tensor& y) {
  const int64_t tokens = y.rows();
  if (tokens == 0) return;
  const auto k = static_cast<int>(row_of_slot.shape[1]), columns = static_cast<int>(y.shape[1]);
  on_dtype(rows.dtype, [&]<class S>(S) {
    on_width<S>(packs_fit<S>(columns, rows, residual, y), [&](auto width) {
      unpermute_rows_kernel<width><<<blocks(tokens, kWarps), kThreads, 0, ctx.gpu->stream()>>>(
          elements<S>(rows), row_of_slot.as<int32_t>(), k, elements<S>(residual), elements<S>(y), tokens, columns);
      check_cuda(cudaGetLastError(), "unpermute_rows_kernel");
    });
  });
}

void permute_weights(Ctx& ctx, const Tensor& weights, const Tensor& slot_of_row, const Tensor& row_weights) {
  gather_scalars(ctx, weights, slot_of_row, row_weights);
}

void unpermute_weights(Ctx& ctx, const Tensor& row_weights, const Tensor& row_of_slot, const Tensor& weights) {
  gather_scalars(ctx, row_weights, row_of_slot, weights);
}

}  // namespace mixtune::cuda
