// 128 x 128 values of bf16 that a block of threads writes in codes (quantise.h): rows from registers, columns through
// shared memory. The kernels that make a product's operand include it, so that values need not go through memory.
#pragma once

#include <cuda_fp8.h>

#include "kernels/cuda_pack.cuh"
#include "kernels/eight_bit/quantise.h"
#include "kernels/ptx.cuh"

namespace mixtune::cuda {

// The groups of rows, as kernels take them by value.
struct GroupTable {
  int32_t begin[kMaxCodedGroups], count[kMaxCodedGroups];
  int groups;
};

inline GroupTable group_table(const RowGroups& groups) {
  GroupTable table;
  table.groups = static_cast<int>(groups.groups);
  for (int e = 0; e < table.groups; ++e) table.begin[e] = groups.begin[e], table.count[e] = groups.count[e];
  return table;
}

struct CodesOut {
  uint8_t* codes;
  float* scales;

  explicit CodesOut(const Codes& out)
      : codes(static_cast<uint8_t*>(out.codes.data)), scales(static_cast<float*>(out.scales.data)) {}
};

// A thread takes chunks of 8 columns: chunk() of the rows row(0), row(1), ..., a pass each.
constexpr int kTileSide = static_cast<int>(kScaleBlock), kTileThreads = 512;
constexpr int kChunk = 8, kChunks = kTileSide / kChunk;
constexpr int kPassRows = kTileThreads / kChunks, kPasses = kTileSide / kPassRows;

__device__ inline int tile_row(int pass) {
  return pass * kPassRows + static_cast<int>(threadIdx.x) / kChunks;
}
__device__ inline int tile_chunk() {
  return static_cast<int>(threadIdx.x) % kChunks;
}

// Where a tile stands: its first row and column, and its group, of which `live` rows of the tile are not 0.
struct TilePlace {
  CodedGroup group;
  int64_t top, left, matrix_rows;
  int live;

  // The tile that a block of the grid takes: blockIdx.x counts tiles, row by row. False where it is in no group.
  __device__ bool find(const GroupTable& groups, int64_t rows, int64_t columns) {
    const int64_t across = columns / kTileSide;
    top = blockIdx.x / across * kTileSide;
    left = blockIdx.x % across * kTileSide;
    matrix_rows = rows;
    for (int e = 0; e < groups.groups; ++e) {
      const int64_t begin = groups.begin[e], count = groups.count[e],
                    aligned = (count + kScaleBlock - 1) / kScaleBlock * kScaleBlock;
      if (top < begin || top >= begin + aligned) continue;
      group = {.index = e, .begin = begin, .rows = aligned, .columns = columns};
      live = static_cast<int>(min(begin + count - top, int64_t{kTileSide}));
      return true;
    }
    return false;
  }
};

// Pairs of bf16 as bits.
constexpr uint32_t kMagnitudes = 0x7FFF7FFF, kInfinity = 0x7F80;

// The bits of the larger of two magnitudes.
__device__ inline uint32_t larger_half(uint32_t pair) {
  pair &= kMagnitudes;
  return max(pair & 0xFFFF, pair >> 16);
}
__device__ inline uint32_t halves(uint32_t low, uint32_t high) {
  return low | high << 16;
}
__device__ inline float low_half(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ inline float high_half(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000);
}
// The maximum of each half over lanes whose numbers differ in the bits from `first` up to `last`.
__device__ inline uint32_t lanes_max(uint32_t pair, int first, int last) {
  for (int lane = last; lane >= first; lane /= 2) pair = __vmaxu2(pair, __shfl_xor_sync(~0u, pair, lane));
  return pair;
}

// Makes infinities NaN. Returns the largest finite magnitude, the bits of a bf16.
__device__ inline uint32_t finish_chunk(uint4& chunk) {
  const uint32_t most = larger_half(
      ptx::larger_magnitudes(ptx::larger_magnitudes(chunk.x, chunk.y), ptx::larger_magnitudes(chunk.z, chunk.w)));
  if (most < kInfinity) return most;
  uint32_t finite = 0;
  const auto finish = [&](uint32_t& pair) {
    const uint32_t bad = __vcmpgeu2(pair & kMagnitudes, halves(kInfinity, kInfinity));
    finite = __vmaxu2(finite, pair & kMagnitudes & ~bad);
    pair |= bad;
  };
  finish(chunk.x), finish(chunk.y), finish(chunk.z), finish(chunk.w);
  return larger_half(finite);
}

__device__ inline uint32_t codes_of(const float2& pair) {
  return __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
}

// AnyScale: scales are fp32 numbers (ScaleRule::kFp32); otherwise powers of two.
template <bool AnyScale>
struct TileScale {
  float scale;
  uint32_t reciprocal;  // of a power of two alone: the bits of a bf16

  // fp8.h's scale_of for a magnitude whose bf16 bits are given; that of a NaN is 1.
  __device__ explicit TileScale(uint32_t bits) {
    if (bits >= kInfinity) bits = 0;
    if constexpr (AnyScale) {
      constexpr Fp8Format kFormat = kE4M3;
      scale = scale_of(kFormat, ScaleRule::kFp32, __uint_as_float(bits << 16));
    } else {
      constexpr int kBias = 127, kMantissa = 7, kLargestExponent = 8;  // 448 = 1.75 2^8
      const int exponent = static_cast<int>(bits >> kMantissa) - kLargestExponent + ((bits & 0x7F) > 0x60);
      const int field = bits == 0 ? kBias : max(exponent, 1);
      scale = __uint_as_float(field << 23);
      reciprocal = (2 * kBias - field) << kMantissa;
    }
  }
};

// A pair divided by the scales of its halves. By powers of two that is exact, where it is not far below E4M3's least.
template <bool AnyScale>
__device__ float2 scaled(uint32_t pair, const TileScale<AnyScale>& low, const TileScale<AnyScale>& high) {
  if constexpr (AnyScale) return {low_half(pair) / low.scale, high_half(pair) / high.scale};
  pair = ptx::multiply_pairs(pair, halves(low.reciprocal, high.reciprocal));
  return {low_half(pair), high_half(pair)};
}

template <bool AnyScale>
__device__ uint2 codes_of_chunk(const uint4& chunk, const TileScale<AnyScale>& scale) {
  const auto codes = [&](uint32_t pair) {
    return codes_of(scaled(pair, scale, scale));
  };
  return {halves(codes(chunk.x), codes(chunk.y)), halves(codes(chunk.z), codes(chunk.w))};
}

// Writes the codes of this thread's chunks of rows, a pass after the other, and at last the rows' scales.
template <bool AnyScale>
class RowWriter {
 public:
  __device__ RowWriter(const TilePlace& at, const CodesOut& out)
      : codes_(out.codes + (at.top + tile_row(0)) * at.group.columns + at.left + tile_chunk() * kChunk),
        step_(kPassRows * at.group.columns) {}

  // `bits`: the row's largest magnitude.
  __device__ void write(int pass, const uint4& chunk, uint32_t bits) {
    const TileScale<AnyScale> scale(bits);
    *reinterpret_cast<uint2*>(codes_ + pass * step_) = codes_of_chunk(chunk, scale);
    if (tile_chunk() == pass) scale_ = scale.scale;
  }
  // The threads of a row have one of its passes each.
  __device__ void write_scales(const TilePlace& at, const CodesOut& out) const {
    if (tile_chunk() >= kPasses) return;
    const int64_t row = at.top + tile_row(tile_chunk());
    out.scales[at.group.rows_begin() + at.group.of_row(row, at.left / kTileSide)] = scale_;
  }

 private:
  uint8_t* codes_;
  int64_t step_;
  float scale_ = 0;
};
static_assert(kPasses <= kChunks);

// The tile in shared memory. A row's chunks are exchanged by an XOR that differs from 16 rows to the next, so that
// neither chunks of a row nor words of a column meet in a bank.
struct SharedTile {
  static constexpr int kRowsOfLane = 16, kLanesDown = kTileSide / kRowsOfLane;

  uint4 chunks[kTileSide * kChunks];

  __device__ static int place(int row, int chunk) { return row * kChunks + (chunk ^ (row / kRowsOfLane)); }
  __device__ void set(int row, const uint4& chunk) { chunks[place(row, tile_chunk())] = chunk; }

  // Calls write(first column of a pair, first row, the words of 16 rows): a warp has a chunk's columns, eight lanes one
  // after the other the rows of a pair.
  template <class Write>
  __device__ void by_columns(const Write& write) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, chunk = static_cast<int>(threadIdx.x) / kWarp,
              down = lane % kLanesDown, pair = lane / kLanesDown;
    uint32_t words[kRowsOfLane];
#pragma unroll
    for (int i = 0; i < kRowsOfLane; ++i)
      words[i] = reinterpret_cast<const uint32_t*>(&chunks[place(down * kRowsOfLane + i, chunk)])[pair];
    write(chunk * kChunk + 2 * pair, down * kRowsOfLane, words);
  }
};
static_assert(kTileThreads / kWarp == kChunks);

// Writes 16 rows of the columns of a pair as codes of the transpose.
template <bool AnyScale>
__device__ void write_pair(const TilePlace& at, int column, int row, const uint32_t (&words)[SharedTile::kRowsOfLane],
                           const TileScale<AnyScale>& low, const TileScale<AnyScale>& high, uint8_t* codes) {
  uint32_t lows[4], highs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float2 rows[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) rows[j] = scaled(words[4 * i + j], low, high);
    lows[i] = halves(codes_of({rows[0].x, rows[1].x}), codes_of({rows[2].x, rows[3].x}));
    highs[i] = halves(codes_of({rows[0].y, rows[1].y}), codes_of({rows[2].y, rows[3].y}));
  }
  uint8_t* to = codes + (at.left + column) * at.matrix_rows + at.top + row;
  *reinterpret_cast<uint4*>(to) = {lows[0], lows[1], lows[2], lows[3]};
  *reinterpret_cast<uint4*>(to + at.matrix_rows) = {highs[0], highs[1], highs[2], highs[3]};
}

// The codes of the transpose, a scale for each column.
template <bool AnyScale>
__device__ void write_columns(const TilePlace& at, const SharedTile& tile, const CodesOut& out) {
  tile.by_columns([&](int column, int row, const uint32_t(&words)[SharedTile::kRowsOfLane]) {
    uint32_t most = ptx::larger_magnitudes(words[0], words[1]);
#pragma unroll
    for (int i = 2; i < SharedTile::kRowsOfLane; ++i) most = ptx::larger_magnitudes(most, words[i]);
    most &= kMagnitudes;
    // A column whose 16 values are NaN counts as 0 beside others.
    const uint32_t low_most = (most & 0xFFFF) < kInfinity ? most & 0xFFFF : 0,
                   high_most = most >> 16 < kInfinity ? most >> 16 : 0;
    most = lanes_max(halves(low_most, high_most), 1, SharedTile::kLanesDown / 2);
    const TileScale<AnyScale> low(most & 0xFFFF), high(most >> 16);
    write_pair(at, column, row, words, low, high, out.codes);
    if (row == 0) {
      float* scales = out.scales + at.group.columns_begin() + at.group.of_column(at.top, at.left + column);
      *reinterpret_cast<float2*>(scales) = {low.scale, high.scale};
    }
  });
}

// The codes of the transpose, one scale for the tile. `bits`: its largest magnitude.
template <bool AnyScale>
__device__ void write_turned(const TilePlace& at, const SharedTile& tile, uint32_t bits, const CodesOut& out) {
  const TileScale<AnyScale> scale(bits);
  tile.by_columns([&](int column, int row, const uint32_t(&words)[SharedTile::kRowsOfLane]) {
    write_pair(at, column, row, words, scale, scale, out.codes);
  });
  if (threadIdx.x == 0)
    out.scales[at.group.turned_begin() + at.group.of_turned(at.top, at.left / kTileSide)] = scale.scale;
}

// The maximum over the block, once every thread has given its own and all have met at a barrier.
class BlockMax {
 public:
  __device__ void give(uint32_t bits) {
    bits = __reduce_max_sync(~0u, bits);
    if (threadIdx.x % kWarp == 0) of_warp_[threadIdx.x / kWarp] = bits;
  }
  __device__ uint32_t take() const { return __reduce_max_sync(~0u, of_warp_[threadIdx.x % (kTileThreads / kWarp)]); }

 private:
  uint32_t of_warp_[kTileThreads / kWarp];
};

// Calls op(AnyScale).
template <class Op>
void on_scale(ScaleRule rule, Op&& op) {
  if (rule == ScaleRule::kFp32) return op(std::true_type{});
  op(std::false_type{});
}

// The blocks of a grid that takes each tile once.
inline unsigned tiles_of(int64_t rows, int64_t columns) {
  return static_cast<unsigned>(rows / kScaleBlock * (columns / kScaleBlock));
}

}  // namespace mixtune::cuda
