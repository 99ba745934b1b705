// Quantising on a GPU: a block of threads takes a tile of 128 x 128. Bound by memory.
#include "base/random.h"
#include "kernels/eight_bit/coded_tile.cuh"
#include "kernels/eight_bit/cuda_ops.h"

namespace mixtune::cuda {

namespace {

struct Quantising {
  const bf16* x;
  int64_t rows, columns;
  GroupTable groups;
  CodesOut out_rows, out_columns, out_squares, out_turned;
};

// The codes of the tile as it lies, one scale for all.
template <bool AnyScale>
__device__ void write_square(const TilePlace& at, const uint4 (&chunks)[kPasses], uint32_t bits, const CodesOut& out) {
  const TileScale<AnyScale> scale(bits);
#pragma unroll
  for (int p = 0; p < kPasses; ++p)
    *reinterpret_cast<uint2*>(out.codes + (at.top + tile_row(p)) * at.group.columns + at.left + tile_chunk() * kChunk) =
        codes_of_chunk(chunks[p], scale);
  if (threadIdx.x == 0)
    out.scales[at.group.squares_begin() + at.group.of_square(at.top, at.left / kTileSide)] = scale.scale;
}

template <bool AnyScale>
__global__ void __launch_bounds__(kTileThreads, 3) quantise_kernel(const __grid_constant__ Quantising a) {
  __shared__ SharedTile tile;
  __shared__ BlockMax most;
  TilePlace at;
  if (!at.find(a.groups, a.rows, a.columns)) return;
  const bf16* from = a.x + at.top * a.columns + at.left + tile_chunk() * kChunk;
  uint4 chunks[kPasses];
#pragma unroll
  for (int p = 0; p < kPasses; ++p)
    chunks[p] = tile_row(p) < at.live ? *reinterpret_cast<const uint4*>(from + tile_row(p) * a.columns) : uint4{};
  const bool turns = a.out_columns.codes || a.out_turned.codes;
  uint32_t all = 0;
  RowWriter<AnyScale> rows(at, a.out_rows);
#pragma unroll
  for (int p = 0; p < kPasses; p += 2) {
    const uint32_t own = halves(finish_chunk(chunks[p]), finish_chunk(chunks[p + 1]));
    all = __vmaxu2(all, own);
    if (turns) tile.set(tile_row(p), chunks[p]), tile.set(tile_row(p + 1), chunks[p + 1]);
    if (!a.out_rows.codes) continue;
    const uint32_t most_of_rows = lanes_max(own, 1, kChunks / 2);
    rows.write(p, chunks[p], most_of_rows & 0xFFFF);
    rows.write(p + 1, chunks[p + 1], most_of_rows >> 16);
  }
  if (a.out_rows.codes) rows.write_scales(at, a.out_rows);
  most.give(larger_half(all));
  __syncthreads();
  if (a.out_columns.codes) write_columns<AnyScale>(at, tile, a.out_columns);
  if (a.out_turned.codes) write_turned<AnyScale>(at, tile, most.take(), a.out_turned);
  if (a.out_squares.codes) write_square<AnyScale>(at, chunks, most.take(), a.out_squares);
}

constexpr int kFillThreads = 256;

__global__ void __launch_bounds__(kFillThreads) fill_kernel(uint8_t* codes, int64_t n, uint64_t key) {
  constexpr uint64_t kNoLargeExponents = 0xBFBFBFBFBFBFBFBF;
  const int64_t i = (blockIdx.x * int64_t{kFillThreads} + threadIdx.x) * static_cast<int64_t>(sizeof(uint64_t));
  const uint64_t eight = mix_bits(key + static_cast<uint64_t>(i)) & kNoLargeExponents;
  for (int j = 0; j < static_cast<int>(sizeof(eight)) && i + j < n; ++j)
    codes[i + j] = static_cast<uint8_t>(eight >> (8 * j));
}

}  // namespace

void fill_codes(Ctx& ctx, const Tensor& codes, uint64_t key) {
  const int64_t n = codes.elements();
  if (n == 0) return;
  fill_kernel<<<static_cast<unsigned>(ceil_div(n, kFillThreads * int64_t{sizeof(uint64_t)})), kFillThreads, 0,
                ctx.gpu->stream()>>>(static_cast<uint8_t*>(codes.data), n, key);
  check_cuda(cudaGetLastError(), "fill_kernel");
}

void quantise(Ctx& ctx, const Quantise& args) {
  const int64_t rows = args.x.rows(), columns = args.x.shape[1];
  if (rows == 0 || columns == 0) return;
  const Quantising a{.x = elements<bf16>(args.x),
                     .rows = rows,
                     .columns = columns,
                     .groups = group_table(args.groups),
                     .out_rows = CodesOut(args.rows),
                     .out_columns = CodesOut(args.columns),
                     .out_squares = CodesOut(args.squares),
                     .out_turned = CodesOut(args.turned)};
  on_scale(args.scale, [&](auto any) {
    quantise_kernel<any()><<<tiles_of(rows, columns), kTileThreads, 0, ctx.gpu->stream()>>>(a);
  });
  check_cuda(cudaGetLastError(), "quantise_kernel");
}

}  // namespace mixtune::cuda
