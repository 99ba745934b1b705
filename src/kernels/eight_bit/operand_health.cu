// What 8 bits lose of an operand, on a GPU. A block of threads takes tiles of whole scale blocks, one after the other:
// their largest magnitudes first, then the values again, which the cache still holds. Bound by memory.
#include "kernels/cuda_pack.cuh"
#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/scale_block.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256, kTile = 128;  // columns of a tile, and the most rows
constexpr int kShort = 32;                  // rows of a tile whose scale blocks have one row
constexpr int64_t kMostBlocks = 1024;

struct Extent {
  int64_t rows, columns, live;  // of each matrix
  int64_t down, across, tiles;  // of tiles: in a column and a row of a matrix's, and all
  int tile_rows;
  int tall, wide;  // of a scale block
};

template <class S>
struct Looking {
  const S* x;
  Extent at;
  Fp8Format format;
  ScaleRule rule;
  const uint32_t* amax;       // of each matrix, as a float's bits; null: each block has its own
  unsigned long long* tally;  // the bits of an int64
};

struct TileStart {
  int64_t matrix, top, left;

  __device__ TileStart(const Extent& at, int64_t tile)
      : matrix(tile / (at.down * at.across)),
        top(tile / at.across % at.down * at.tile_rows),
        left(tile % at.across * kTile) {}
};

// Calls use(row in the tile, column in the tile, pack) in all threads alike. What is not there, or does not live, is 0.
template <int Width, class S, class Use>
__device__ void for_each_pack(const Looking<S>& a, const TileStart& tile, const Use& use) {
  constexpr int kPacks = kTile / Width;
  const int column = static_cast<int>(threadIdx.x) % kPacks * Width;
  for (int row = static_cast<int>(threadIdx.x) / kPacks; row < a.at.tile_rows; row += kThreads / kPacks) {
    const int64_t r = tile.top + row, c = tile.left + column;
    Pack<S, Width> pack = {};
    if (r < a.at.live && c < a.at.columns) pack = load<Width>(a.x + (tile.matrix * a.at.rows + r) * a.at.columns + c);
    use(row, column, pack);
  }
}

__device__ int block_of(const Extent& at, int row, int column) {
  return row / at.tall * (kTile / at.wide) + column / at.wide;
}

// Raises amax [kTile], of the tile's scale blocks.
template <int Width, class S>
__device__ void find_amax(const Looking<S>& a, const TileStart& tile, uint32_t* amax) {
  const int lanes = min(a.at.wide / Width, kWarp);  // neighbours with packs of one block; 0 where a block has a column
  for_each_pack<Width>(a, tile, [&](int row, int column, const Pack<S, Width>& pack) {
    uint32_t most = 0;
#pragma unroll
    for (int i = 0; i < Width; ++i) {
      const uint32_t bits = magnitude_bits(pack[i]);
      if (a.at.wide == 1 && bits > 0) atomicMax(&amax[block_of(a.at, row, column + i)], bits);
      most = max(most, bits);
    }
    if (a.at.wide == 1) return;
    for (int lane = lanes / 2; lane > 0; lane /= 2) most = max(most, __shfl_xor_sync(~0u, most, lane));
    if (threadIdx.x % lanes == 0 && most > 0) atomicMax(&amax[block_of(a.at, row, column)], most);
  });
}

struct Sums {
  int values = 0, flushed = 0, saturated = 0;  // of one thread
  uint32_t amax = 0;

  __device__ void add(float x, float scale, const Fp8Losses<float>& losses) {
    const float magnitude = fabsf(x);
    const uint32_t bits = magnitude_bits(x);
    const bool finite = __float_as_uint(magnitude) < 0x7F800000, full = !finite || losses.saturates(magnitude, scale);
    values += magnitude != 0;
    saturated += full;
    flushed += !full && magnitude != 0 && losses.flushes(magnitude, scale);
    amax = max(amax, bits);
  }

  // From all threads of a block.
  __device__ void add_to(unsigned long long* tally) const {
    const int64_t all[] = {block_sum<kThreads>(int64_t{values}), block_sum<kThreads>(int64_t{flushed}),
                           block_sum<kThreads>(int64_t{saturated})};
    const uint32_t most = __reduce_max_sync(~0u, amax);
    if (threadIdx.x % kWarp == 0 && most > 0) atomicMax(tally + kHealthAmax, static_cast<unsigned long long>(most));
    if (threadIdx.x > 0) return;
    for (const int number : {kHealthValues, kHealthFlushed, kHealthSaturated})
      if (all[number] > 0) atomicAdd(tally + number, static_cast<unsigned long long>(all[number]));
  }
};

template <class S, int Width>
__global__ void __launch_bounds__(kThreads) health_kernel(const __grid_constant__ Looking<S> a) {
  __shared__ uint32_t amax[kTile];
  const Fp8Losses<float> losses(a.format);
  Sums sums;
  for (int64_t t = blockIdx.x; t < a.at.tiles; t += gridDim.x) {
    const TileStart tile(a.at, t);
    if (threadIdx.x < kTile) amax[threadIdx.x] = a.amax ? a.amax[tile.matrix] : 0;
    __syncthreads();
    if (!a.amax) {
      find_amax<Width>(a, tile, amax);
      __syncthreads();
    }
    for_each_pack<Width>(a, tile, [&](int row, int column, const Pack<S, Width>& pack) {
      const auto scale_at = [&](int i) {
        const int block = a.amax ? 0 : block_of(a.at, row, column + i);
        return scale_of(a.format, a.rule, __uint_as_float(amax[block]));
      };
      const float first = scale_at(0);
#pragma unroll
      for (int i = 0; i < Width; ++i) sums.add(pack[i], i > 0 && a.at.wide == 1 ? scale_at(i) : first, losses);
    });
    __syncthreads();
  }
  sums.add_to(a.tally);
}

Extent extent_of(const OperandHealth& args) {
  const ScaleBlocks& blocks = args.bits.blocks;
  const bool many = args.x.shape.rank() == 3;
  Extent at = {.rows = args.x.shape[-2],
               .columns = args.x.shape[-1],
               .live = many ? args.x.shape[-2] : args.live,
               .tall = static_cast<int>(blocks.rows > 0 ? blocks.rows : kTile),
               .wide = static_cast<int>(blocks.columns > 0 ? blocks.columns : kTile)};
  MT_CHECK((blocks.rows == 0) == (blocks.columns == 0));
  MT_CHECK(at.tall == 1 || (at.tall <= kTile && at.tall % kShort == 0));
  MT_CHECK(at.wide == 1 || at.wide == kWarp || at.wide == kTile);
  at.tile_rows = at.tall == 1 ? kShort : at.tall;
  MT_CHECK(at.tile_rows / at.tall * (kTile / at.wide) <= kTile);
  at.down = ceil_div(at.live, at.tile_rows);
  at.across = ceil_div(at.columns, kTile);
  at.tiles = at.down * at.across * (many ? args.x.shape[0] : 1);
  return at;
}

}  // namespace

void operand_health(Ctx& ctx, const OperandHealth& args, const Tensor& amax) {
  const Extent at = extent_of(args);
  if (at.tiles == 0) return;
  on_dtype(args.x.dtype, [&]<class S>(S) {
    Looking<S> a = {.x = elements<S>(args.x),
                    .at = at,
                    .format = args.bits.format,
                    .rule = args.bits.scale,
                    .amax = nullptr,
                    .tally = reinterpret_cast<unsigned long long*>(args.tally.as<int64_t>())};
    if (amax) a.amax = find_matrix_amax(ctx, a.x, at.rows * at.columns, at.live * at.columns, amax);
    on_width<S>(packs_fit<S>(at.columns, args.x), [&](auto width) {
      const auto blocks = static_cast<unsigned>(std::min(at.tiles, kMostBlocks));
      health_kernel<S, width()><<<blocks, kThreads, 0, ctx.gpu->stream()>>>(a);
    });
  });
  check_cuda(cudaGetLastError(), "health_kernel");
}

}  // namespace mixtune::cuda
