// What the kernels of adapted_swiglu.h share. A block has kBlockColumns columns of gate, of up and of the activation,
// and the rows of a chunk of one expert, 16 at a time: these come into shared memory some steps ahead, with the rows of
// u and v. A warp adds to its columns by mma.m16n8k16, and leaves results where their operands were.
#pragma once

#include "kernels/mma_tiles.cuh"
#include "kernels/moe/cuda_ops.h"

namespace mixtune::cuda {

constexpr int kTileRows = 16;

// The rows of experts, by chunks.
struct Chunks {
  ThinGroups groups;
  int rows;  // of a chunk, but for an expert's last

  struct Chunk {
    int group, begin, end;
  };
  __device__ Chunk at(int i) const {
    int e = 0, before = 0;
    for (int chunks = of_group(0); i >= before + chunks; chunks = of_group(e)) before += chunks, ++e;
    const int first = groups.begin[e] + (i - before) * rows;
    return {e, first, min(first + rows, groups.end[e])};
  }
  __host__ __device__ int of_group(int e) const { return (groups.end[e] - groups.begin[e] + rows - 1) / rows; }
  int all() const;
};

// Zeroes the rows that no group has.
void zero_rest(Ctx& ctx, const Tensor& x, const ThinGroups& groups);

// A pair: its columns of what rows have, in [R, pitch]; and its matrix of the first expert, [F, rank] or [rank, F].
struct PairSide {
  Matrix inner;
  const bf16* outer;
  int64_t expert_pitch;
  __device__ explicit operator bool() const { return outer != nullptr; }
  __device__ Matrix rows(int expert, int columns, int rank) const {
    return {outer + expert * expert_pitch, columns, rank};
  }
  __device__ Matrix columns(int expert, int columns, int rank) const {
    return {outer + expert * expert_pitch, rank, columns};
  }
};
// Of rank up to 16 kSteps.
template <int kSteps>
struct Layout {
  static constexpr int kStages = 2, kTiles = kSteps == 1 ? 4 : 2, kColumns = 8 * kTiles;
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp, kBlockColumns = kWarps * kColumns;
  static_assert(kColumns == swiglu_warp_columns(16 * kSteps));

  using Values = Tile<kTileRows, kBlockColumns>;     // of gate, up, or the activation
  using Inner = Tile<kTileRows, 16 * kSteps>;        // of u or v
  using Rows = Tile<kBlockColumns, 16 * kSteps>;     // of B
  using Columns = Tile<16 * kSteps, kBlockColumns>;  // of A
};

// Where this thread's elements of an mma tile are, and which part of the block it works on.
struct Lane {
  int warp = static_cast<int>(threadIdx.x) / kWarp, group = static_cast<int>(threadIdx.x) % kWarp / 4,
      quad = static_cast<int>(threadIdx.x) % 4;
};

// values += scale (left right): 16 rows, and 16 of the warp's columns from column `n` on of the block's.
template <int kSteps, bool kOfRows>
__device__ void add_product(float (&values)[2][4], const uint32_t (&left)[kSteps][4], uint32_t right, int n,
                            float scale) {
  using L = Layout<kSteps>;
  using T = std::conditional_t<kOfRows, typename L::Rows, typename L::Columns>;
  const uint32_t tile = kOfRows ? T::at(right, n, 0) : T::at(right, 0, n);
  float c[2][4] = {};
#pragma unroll
  for (int s = 0; s < kSteps; ++s) multiply_right<T, kOfRows>(c, left[s], tile, 16 * s);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i / 4][i % 4] += scale * c[i / 4][i % 4];
}

template <int kSteps, bool kTransposed>
__device__ void load_inner(uint32_t (&left)[kSteps][4], uint32_t tile) {
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
    load_left<typename Layout<kSteps>::Inner, kTransposed>(left[s], tile, kTransposed ? 16 * s : 0,
                                                           kTransposed ? 0 : 16 * s);
}

// What both directions read: gate_up, the two modules' pairs, and sizes.
struct GateUpOperands {
  Matrix gate_up;
  const float* row_weights;
  PairSide gate, up;
  int columns, rank;  // F
  float scale;
};
GateUpOperands gate_up_operands(const Tensor& gate_up, const Tensor& row_weights, const GateUpPairs& pairs);

// In shared memory: 16 rows of it; and B of both.
template <int kSteps>
struct GateUpStage {
  using L = Layout<kSteps>;
  char gate[L::Values::kBytes], up[L::Values::kBytes];
  char gate_u[L::Inner::kBytes], up_u[L::Inner::kBytes];

  // A block's columns from `first` on.
  __device__ void load(const GateUpOperands& p, int row, int first) {
    L::Values::template load<L::kThreads>(ptx::shared_address(gate), p.gate_up, row, first);
    L::Values::template load<L::kThreads>(ptx::shared_address(up), p.gate_up, row, p.columns + first);
    if (p.gate) L::Inner::template load<L::kThreads>(ptx::shared_address(gate_u), p.gate.inner, row, 0);
    if (p.up) L::Inner::template load<L::kThreads>(ptx::shared_address(up_u), p.up.inner, row, 0);
  }
};
template <int kSteps>
struct GateUpRight {
  using L = Layout<kSteps>;
  char gate_b[L::Rows::kBytes], up_b[L::Rows::kBytes];

  __device__ void load(const GateUpOperands& p, int expert, int first) {
    const auto load_one = [&](char* to, const PairSide& side) {
      const Matrix b = side.rows(expert, p.columns, p.rank);
      if (side) L::Rows::template load<L::kThreads>(ptx::shared_address(to), b, first, 0);
    };
    load_one(gate_b, p.gate);
    load_one(up_b, p.up);
  }
};

// The place of row `group` and columns 2 quad, 2 quad + 1 of an mma tile at column n of a tile in shared memory.
template <class T>
__device__ bf16* place(char* tile, const Lane& lane, int row, int n) {
  return reinterpret_cast<bf16*>(tile + (lane.group + row) * T::kRowBytes) + n + 2 * lane.quad;
}
// Two mma tiles from column n on: element i is of row i / 2, column i % 2.
template <class T>
__device__ void load_values(float (&values)[2][4], char* tile, const Lane& lane, int n) {
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float2 both =
        __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(place<T>(tile, lane, i % 4 * 4, n + i / 4 * 8)));
    values[i / 4][i % 4] = both.x, values[i / 4][i % 4 + 1] = both.y;
  }
}
template <class T>
__device__ void store_values(const float (&values)[2][4], char* tile, const Lane& lane, int n) {
#pragma unroll
  for (int i = 0; i < 8; i += 2)
    *reinterpret_cast<__nv_bfloat162*>(place<T>(tile, lane, i % 4 * 4, n + i / 4 * 8)) =
        __floats2bfloat162_rn(values[i / 4][i % 4], values[i / 4][i % 4 + 1]);
}
// The warp's columns of 16 rows, from shared memory to [.., pitch], of which `to` is the block's first element.
template <class L>
__device__ void copy_out(const char* tile, bf16* to, int64_t pitch) {
  constexpr int kVectors = L::kColumns / kVectorElements;  // of a row
  const int lane = static_cast<int>(threadIdx.x) % kWarp, first = static_cast<int>(threadIdx.x) / kWarp * L::kColumns;
#pragma unroll
  for (int i = lane; i < kTileRows * kVectors; i += kWarp) {
    const int row = i / kVectors, column = first + i % kVectors * kVectorElements;
    *reinterpret_cast<uint4*>(to + row * pitch + column) =
        *reinterpret_cast<const uint4*>(tile + row * L::Values::kRowBytes + column * 2);
  }
}

// Calls op(Constant<kSteps>{}) for a rank.
template <class Op>
void on_rank(int rank, const Op& op) {
  if (rank <= 16) return op(std::integral_constant<int, 1>{});
  if (rank <= 32) return op(std::integral_constant<int, 2>{});
  op(std::integral_constant<int, 4>{});
}

template <int kSteps>
dim3 grid_of(int columns, const Chunks& chunks) {
  return {static_cast<unsigned>(ceil_div(columns, Layout<kSteps>::kBlockColumns)), static_cast<unsigned>(chunks.all())};
}

}  // namespace mixtune::cuda
