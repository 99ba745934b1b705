// Operands rounded to 8 bits on a GPU. A block of threads takes a tile of whole scale blocks: their largest magnitudes
// first, then the values again, which the cache still holds.
#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/eight_bit/scale_block.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kThreads = 256, kTile = 128;  // columns of a tile, and the most rows
constexpr int kShort = 32;                  // rows of a tile whose scale blocks have one row

template <class S>
struct Rounding {
  const S* x;
  S* y;
  int64_t rows, columns, live;  // of each matrix
  int tile_rows;
  int tall, wide;  // of a scale block; a matrix that shares a scale is taken by tiles, and has `amax`
  Fp8Format format;
  ScaleRule rule;
  const uint32_t* amax;  // of each matrix, as a float's bits; null: each block has its own
};

// Calls op(row in the tile, column in the tile, element) for each element of the tile that there is and that lives.
// A warp has 32 columns of one row; `row` runs on with the same column.
template <class S, class Op>
__device__ void for_each(const Rounding<S>& a, int64_t top, int64_t left, const Op& op) {
  const int column = static_cast<int>(threadIdx.x) % kTile;
  const int64_t matrix = static_cast<int64_t>(blockIdx.z) * a.rows * a.columns;
  for (int row = static_cast<int>(threadIdx.x) / kTile; row < a.tile_rows; row += kThreads / kTile)
    op(row, column, matrix + (top + row) * a.columns + left + column, top + row < a.live && left + column < a.columns);
}

template <class S>
__device__ int block_of(const Rounding<S>& a, int row, int column) {
  return row / a.tall * (kTile / a.wide) + column / a.wide;
}

template <class S>
__global__ void __launch_bounds__(kThreads) round_kernel(Rounding<S> a) {
  __shared__ uint32_t amax[kTile];  // of the tile's scale blocks
  const int64_t tiles = ceil_div(a.columns, kTile), top = blockIdx.x / tiles * a.tile_rows,
                left = blockIdx.x % tiles * kTile;
  if (threadIdx.x < kTile) amax[threadIdx.x] = a.amax ? a.amax[blockIdx.z] : 0;
  __syncthreads();
  if (!a.amax) {
    for_each(a, top, left, [&](int row, int column, int64_t i, bool there) {
      uint32_t bits = there ? magnitude_bits(to_float(a.x[i])) : 0;
      if (a.wide > 1) bits = __reduce_max_sync(~0u, bits);
      if (bits > 0 && (a.wide == 1 || column % kWarp == 0)) atomicMax(&amax[block_of(a, row, column)], bits);
    });
    __syncthreads();
  }
  for_each(a, top, left, [&](int row, int column, int64_t i, bool there) {
    if (top + row >= a.rows || left + column >= a.columns) return;
    float y = 0;
    if (there) {
      const float scale = scale_of(a.format, a.rule, __uint_as_float(amax[block_of(a, row, column)]));
      y = round_to(a.format, to_float(a.x[i]) / scale) * scale;
    }
    a.y[i] = from_float<S>(y);
  });
}

template <class S>
void round_matrices(Ctx& ctx, const Tensor& amax, int64_t matrices, Rounding<S> a) {
  if (amax) a.amax = find_matrix_amax(ctx, a.x, a.rows * a.columns, a.live * a.columns, amax);
  const dim3 grid(static_cast<unsigned>(ceil_div(a.rows, a.tile_rows) * ceil_div(a.columns, kTile)), 1,
                  static_cast<unsigned>(matrices));
  round_kernel<<<grid, kThreads, 0, ctx.gpu->stream()>>>(a);
  check_cuda(cudaGetLastError(), "round_kernel");
}

}  // namespace

void round_operand(Ctx& ctx, const RoundOperand& args, const Tensor& amax) {
  if (args.x.elements() == 0) return;
  const ScaleBlocks& blocks = args.bits.blocks;
  const bool many = args.x.shape.rank() == 3;
  const auto tall = static_cast<int>(blocks.rows > 0 ? blocks.rows : kTile),
             wide = static_cast<int>(blocks.columns > 0 ? blocks.columns : kTile);
  MT_CHECK((blocks.rows == 0) == (blocks.columns == 0) && tall <= kTile && kTile % wide == 0);
  MT_CHECK(wide == 1 || wide % kWarp == 0);
  on_dtype(args.x.dtype, [&]<class S>(S) {
    round_matrices<S>(ctx, amax, many ? args.x.shape[0] : 1,
                      {.x = elements<S>(args.x),
                       .y = elements<S>(args.y),
                       .rows = args.x.shape[-2],
                       .columns = args.x.shape[-1],
                       .live = many ? args.x.shape[-2] : args.live,
                       .tile_rows = tall == 1 ? kShort : tall,
                       .tall = tall,
                       .wide = wide,
                       .format = args.bits.format,
                       .rule = args.bits.scale,
                       .amax = nullptr});
  });
}

}  // namespace mixtune::cuda
