// Quantising to MX on a GPU: a block of threads takes a tile of 128 x 128, whose scales are one tile of cuBLASLt's
// layout, 128 x 4, either way. Bound by memory.
#include "kernels/eight_bit/coded_tile.cuh"
#include "kernels/eight_bit/cuda_ops.h"

namespace mixtune::cuda {

namespace {

struct MxOut {
  uint8_t* codes;
  uint8_t* scales;

  explicit MxOut(const Codes& out)
      : codes(static_cast<uint8_t*>(out.codes.data)), scales(static_cast<uint8_t*>(out.scales.data)) {}
};

struct QuantisingMx {
  const bf16* x;
  int64_t rows, columns;
  GroupTable groups;
  MxOut straight, transposed;
};

// fp8.h's scale_of, by kMx, for a magnitude whose bf16 bits are given; that of a NaN is 1.
struct MxScale {
  uint32_t code;  // E8M0
  float reciprocal;

  __device__ explicit MxScale(uint32_t bits) {
    constexpr int kBias = 127, kLargestExponent = 8;  // 448 = 1.75 2^8
    const int field = static_cast<int>(bits >> 7) - kLargestExponent + ((bits & 0x7F) > 0x60);
    code = bits == 0 || bits >= kInfinity ? kBias : max(field, 0);
    reciprocal = __uint_as_float((2 * kBias - code) << 23);
  }

  __device__ uint32_t codes(float low, float high) const {
    return __nv_cvt_float2_to_fp8x2({low * reciprocal, high * reciprocal}, __NV_SATFINITE, __NV_E4M3);
  }
  __device__ uint32_t codes(uint32_t pair) const { return codes(low_half(pair), high_half(pair)); }
  __device__ uint2 codes(const uint4& chunk) const {
    return {halves(codes(chunk.x), codes(chunk.y)), halves(codes(chunk.z), codes(chunk.w))};
  }
};

// The four scales of a row of a tile, in a word: each of four lanes, which differ in the bits from `first` up to `last`
// of their number, gives the byte `i`; all get the word.
__device__ uint32_t gather_scales(const MxScale& scale, int i, int first, int last) {
  uint32_t word = scale.code << (8 * i);
  for (int lane = first; lane <= last; lane *= 2) word |= __shfl_xor_sync(~0u, word, lane);
  return word;
}

// The rows of the tile as they lie.
__device__ void write_rows(const TilePlace& at, const uint4 (&chunks)[kPasses], const uint32_t (&most)[kPasses],
                           const MxOut& out) {
  constexpr int kBlockChunks = static_cast<int>(kMxBlock) / kChunk;  // lanes that share a scale
  static_assert(kPasses == 4 && kPassRows == 32, "a thread's rows are those that the layout has side by side");
  uint32_t words[kPasses];
#pragma unroll
  for (int p = 0; p < kPasses; ++p) {
    const MxScale scale(lanes_max(most[p], 1, kBlockChunks / 2));
    *reinterpret_cast<uint2*>(out.codes + (at.top + tile_row(p)) * at.group.columns + at.left + tile_chunk() * kChunk) =
        scale.codes(chunks[p]);
    words[p] = gather_scales(scale, tile_chunk() / kBlockChunks, kBlockChunks, kChunks / 2);
  }
  if (tile_chunk() != 0) return;
  uint8_t* scales = out.scales + at.group.mx_begin() +
                    at.group.mx_of_rows().at(at.top - at.group.begin + tile_row(0), at.left / kMxBlock);
  *reinterpret_cast<uint4*>(scales) = {words[0], words[1], words[2], words[3]};
}

// The rows of the tile's transpose.
__device__ void write_transposed(const TilePlace& at, const SharedTile& tile, const MxOut& out) {
  constexpr int kBlockLanes = static_cast<int>(kMxBlock) / SharedTile::kRowsOfLane;  // that share a scale
  tile.by_columns([&](int column, int row, const uint32_t(&words)[SharedTile::kRowsOfLane]) {
    uint32_t most = 0;
#pragma unroll
    for (const uint32_t word : words) {
      const uint32_t magnitudes = word & kMagnitudes;
      most = __vmaxu2(most, magnitudes & ~__vcmpgeu2(magnitudes, halves(kInfinity, kInfinity)));
    }
    most = lanes_max(most, 1, kBlockLanes / 2);
    const MxScale low(most & 0xFFFF), high(most >> 16);
    uint32_t lows[4], highs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t* w = words + 4 * i;
      lows[i] = halves(low.codes(low_half(w[0]), low_half(w[1])), low.codes(low_half(w[2]), low_half(w[3])));
      highs[i] = halves(high.codes(high_half(w[0]), high_half(w[1])), high.codes(high_half(w[2]), high_half(w[3])));
    }
    uint8_t* to = out.codes + (at.left + column) * at.matrix_rows + at.top + row;
    *reinterpret_cast<uint4*>(to) = {lows[0], lows[1], lows[2], lows[3]};
    *reinterpret_cast<uint4*>(to + at.matrix_rows) = {highs[0], highs[1], highs[2], highs[3]};

    const int block = row / static_cast<int>(kMxBlock);
    const uint32_t low_scales = gather_scales(low, block, kBlockLanes, SharedTile::kLanesDown / 2),
                   high_scales = gather_scales(high, block, kBlockLanes, SharedTile::kLanesDown / 2);
    if (row != 0) return;
    const MxScales layout = at.group.mx_of_columns();
    uint8_t* scales = out.scales + at.group.mx_begin();
    const int64_t first = (at.top - at.group.begin) / kMxBlock;
    *reinterpret_cast<uint32_t*>(scales + layout.at(at.left + column, first)) = low_scales;
    *reinterpret_cast<uint32_t*>(scales + layout.at(at.left + column + 1, first)) = high_scales;
  });
}

__global__ void __launch_bounds__(kTileThreads, 2) quantise_mx_kernel(const __grid_constant__ QuantisingMx a) {
  __shared__ SharedTile tile;
  TilePlace at;
  if (!at.find(a.groups, a.rows, a.columns)) return;
  const bf16* from = a.x + at.top * a.columns + at.left + tile_chunk() * kChunk;
  uint4 chunks[kPasses];
#pragma unroll
  for (int p = 0; p < kPasses; ++p)
    chunks[p] = tile_row(p) < at.live ? *reinterpret_cast<const uint4*>(from + tile_row(p) * a.columns) : uint4{};
  uint32_t most[kPasses];
#pragma unroll
  for (int p = 0; p < kPasses; ++p) {
    most[p] = finish_chunk(chunks[p]);
    if (a.transposed.codes) tile.set(tile_row(p), chunks[p]);
  }
  if (a.straight.codes) write_rows(at, chunks, most, a.straight);
  if (!a.transposed.codes) return;
  __syncthreads();
  write_transposed(at, tile, a.transposed);
}

}  // namespace

void quantise_mx(Ctx& ctx, const Quantise& args) {
  const int64_t rows = args.x.rows(), columns = args.x.shape[1];
  if (rows == 0 || columns == 0) return;
  // Both operands of a product are scaled alike.
  for (const auto& [straight, transposed] : {std::pair(args.rows, args.columns), {args.squares, args.turned}}) {
    if (!straight && !transposed) continue;
    const QuantisingMx a{.x = elements<bf16>(args.x),
                         .rows = rows,
                         .columns = columns,
                         .groups = group_table(args.groups),
                         .straight = MxOut(straight),
                         .transposed = MxOut(transposed)};
    quantise_mx_kernel<<<tiles_of(rows, columns), kTileThreads, 0, ctx.gpu->stream()>>>(a);
    check_cuda(cudaGetLastError(), "quantise_mx_kernel");
  }
}

}  // namespace mixtune::cuda
