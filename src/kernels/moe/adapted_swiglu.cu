// SwiGLU with the parts of adapters. A warp has kColumns columns of gate, of up and of the activation, and the rows of
// a chunk of one expert, 16 at a time. B and A are in its registers as mma.m16n8k16 reads them, and so are the sums of
// their gradients; nothing passes through shared memory.
//
// A lane's elements of a row are neighbours, kWidth of them, so that it moves them at once: column c of mma tile t
// stands for column kWidth (c / 2) + 2 t + c % 2 of the warp's.
#include <algorithm>

#include "kernels/cuda_pack.cuh"
#include "kernels/moe/cuda_ops.h"
#include "kernels/ptx.cuh"
#include "kernels/swiglu_math.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kGroups = 64, kTileRows = 16, kForwardChunkRows = 512;

// The rows of experts, by chunks.
struct Chunks {
  int groups, rows_of_chunk;
  int begin[kGroups], end[kGroups];

  struct Chunk {
    int group, begin, end;
  };
  __device__ Chunk at(int i) const {
    int e = 0, before = 0;
    for (int chunks = of_group(0); i >= before + chunks; chunks = of_group(e)) before += chunks, ++e;
    const int first = begin[e] + (i - before) * rows_of_chunk;
    return {e, first, min(first + rows_of_chunk, end[e])};
  }
  __host__ __device__ int of_group(int e) const { return (end[e] - begin[e] + rows_of_chunk - 1) / rows_of_chunk; }
};

// The side of a pair that rows have, [R, pitch], from one of its columns on; and the other one, of all experts.
struct Side {
  const bf16* inner;
  int pitch;
  const bf16* outer;    // [E, ...]
  int64_t outer_pitch;  // from one expert to the next
  __device__ explicit operator bool() const { return outer != nullptr; }
};

struct Forward {
  const bf16* gate_up;
  const float* row_weights;
  Side gate, up;
  bf16* act;
  int columns, rank;  // F
  float scale;
};

struct Backward {
  const bf16 *gate_up, *dact;
  const float* row_weights;
  Side gate, up, down;
  bf16 *dgate_up, *act;
  float *row_sums, *chunk_sums;
  int64_t rows;
  int columns, rank;
  float scale;
  bool wants_db, wants_da;
};

// Of rank up to 16 kSteps.
template <int kSteps>
struct Layout {
  static constexpr int kTiles = kSteps == 1 ? 4 : 2, kWidth = 2 * kTiles, kColumns = 8 * kTiles;
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp, kBlockColumns = kWarps * kColumns;
  static_assert(kBlockColumns >= kSwigluBlockColumns);
};

struct Lane {
  int group = static_cast<int>(threadIdx.x) % kWarp / 4, quad = static_cast<int>(threadIdx.x) % 4;
};

__device__ uint32_t load_pair(const bf16* from) {
  return *reinterpret_cast<const uint32_t*>(from);
}
__device__ uint32_t pack_pair(bf16 low, bf16 high) {
  return static_cast<uint32_t>(__bfloat16_as_ushort(low)) | static_cast<uint32_t>(__bfloat16_as_ushort(high)) << 16;
}

// Columns 2 t and 2 t + 1 of a pack.
template <int kWidth>
__device__ uint32_t pair_of(const Pack<bf16, kWidth>& pack, int t) {
  return pack_pair(pack.x[2 * t], pack.x[2 * t + 1]);
}

// The right operand [16 kSteps, kColumns] of a product with rows of u or v.
template <int kSteps>
struct Right {
  static constexpr int kTiles = Layout<kSteps>::kTiles;
  uint32_t b[kSteps][kTiles][2] = {};

  static __device__ int column_of(const Lane& lane, int tile) {
    return Layout<kSteps>::kWidth * (lane.group / 2) + 2 * tile + lane.group % 2;
  }
  // From rows [F, rank], of which the first is the warp's first column.
  __device__ void load_rows(const Lane& lane, const bf16* from, int rank) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          if (const int k = 16 * s + 8 * half + 2 * lane.quad; k < rank)
            b[s][t][half] = load_pair(from + column_of(lane, t) * rank + k);
  }
  // From [rank, columns], of which the first column is the warp's.
  __device__ void load_columns(const Lane& lane, const bf16* from, int rank, int columns) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int t = 0; t < kTiles; ++t)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          if (const int k = 16 * s + 8 * half + 2 * lane.quad; k < rank) {
            const bf16* at = from + int64_t{k} * columns + column_of(lane, t);
            b[s][t][half] = pack_pair(at[0], at[columns]);
          }
  }
};

// 16 rows of u or v [16, rank], as mma's left operand.
template <int kSteps>
struct Left {
  uint32_t a[kSteps][4];

  __device__ void load(const Lane& lane, const bf16* from, int pitch, int rank) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = lane.group + i % 2 * 8, k = 16 * s + i / 2 * 8 + 2 * lane.quad;
        a[s][i] = k < rank ? load_pair(from + row * pitch + k) : 0;
      }
  }
  __device__ Left transposed() const {
    Left t;
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) t.a[s][i] = ptx::transpose(a[s][i / 2 + i % 2 * 2]);
    return t;
  }
};

// values += scale (left right), of tile t: of the lane's two rows two columns each.
template <int kSteps>
__device__ void add_product(float (&values)[4], const Left<kSteps>& left, const Right<kSteps>& right, int t,
                            float scale) {
  float c[4] = {};
#pragma unroll
  for (int s = 0; s < kSteps; ++s) ptx::multiply(c, left.a[s], right.b[s][t][0], right.b[s][t][1]);
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] += scale * c[i];
}

// The sums over rows of left^T values: [rank, kColumns], transposed as the gradients of B and A are not.
template <int kSteps>
struct Sums {
  static constexpr int kTiles = Layout<kSteps>::kTiles, kWidth = 2 * kTiles;
  float c[kSteps][kTiles][4] = {};

  // Of tile t, and the left operand transposed.
  __device__ void add(const Left<kSteps>& left, const Pack<bf16, kWidth> (&rows)[2], int t) {
    const uint32_t low = ptx::transpose(pair_of(rows[0], t)), high = ptx::transpose(pair_of(rows[1], t));
#pragma unroll
    for (int s = 0; s < kSteps; ++s) ptx::multiply(c[s][t], left.a[s], low, high);
  }
  // To rows [rank, columns], of which the first column is the warp's.
  __device__ void store(const Lane& lane, float* to, int rank, int columns) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = 16 * s + 8 * half + lane.group;
        if (row >= rank) continue;
        float* at = to + int64_t{row} * columns + kWidth * lane.quad;
#pragma unroll
        for (int t = 0; t < kTiles; ++t)
          *reinterpret_cast<float2*>(at + 2 * t) = make_float2(c[s][t][2 * half], c[s][t][2 * half + 1]);
      }
  }
};

// A lane's elements of its two rows.
template <int kWidth>
__device__ void load_rows(Pack<bf16, kWidth> (&rows)[2], const bf16* from, int64_t pitch) {
  rows[0] = load<kWidth>(from);
  rows[1] = load<kWidth>(from + 8 * pitch);
}
// Those of tile t.
template <int kWidth>
__device__ void load_tile(float (&values)[4], const Pack<bf16, kWidth> (&rows)[2], int t) {
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = rows[i / 2][2 * t + i % 2];
}

template <int kSteps>
__global__ void __launch_bounds__(Layout<kSteps>::kThreads)
    forward_kernel(const __grid_constant__ Forward p, const __grid_constant__ Chunks chunks) {
  using L = Layout<kSteps>;
  constexpr int kWidth = L::kWidth;
  const Lane lane;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first = (static_cast<int>(blockIdx.x) * L::kWarps + warp) * L::kColumns;
  if (first >= p.columns) return;
  const Chunks::Chunk chunk = chunks.at(static_cast<int>(blockIdx.y));
  Right<kSteps> gate_b, up_b;
  if (p.gate) gate_b.load_rows(lane, p.gate.outer + chunk.group * p.gate.outer_pitch + int64_t{first} * p.rank, p.rank);
  if (p.up) up_b.load_rows(lane, p.up.outer + chunk.group * p.up.outer_pitch + int64_t{first} * p.rank, p.rank);
  const int64_t f = p.columns;
  const int column = first + kWidth * lane.quad;
#pragma unroll 2
  for (int row = chunk.begin; row < chunk.end; row += kTileRows) {
    const int64_t own = row + lane.group;
    Pack<bf16, kWidth> gate_rows[2], up_rows[2];
    load_rows(gate_rows, p.gate_up + own * 2 * f + column, 2 * f);
    load_rows(up_rows, p.gate_up + own * 2 * f + f + column, 2 * f);
    Left<kSteps> gate_u, up_u;
    if (p.gate) gate_u.load(lane, p.gate.inner + int64_t{row} * p.gate.pitch, p.gate.pitch, p.rank);
    if (p.up) up_u.load(lane, p.up.inner + int64_t{row} * p.up.pitch, p.up.pitch, p.rank);
    const float weights[2] = {p.row_weights[own], p.row_weights[own + 8]};
    Pack<bf16, kWidth> act[2];
#pragma unroll
    for (int t = 0; t < L::kTiles; ++t) {
      float gate[4], up[4];
      load_tile(gate, gate_rows, t);
      load_tile(up, up_rows, t);
      if (p.gate) add_product(gate, gate_u, gate_b, t, p.scale);
      if (p.up) add_product(up, up_u, up_b, t, p.scale);
#pragma unroll
      for (int i = 0; i < 4; ++i) act[i / 2].set(2 * t + i % 2, swiglu<bf16>(gate[i], up[i], weights[i / 2]));
    }
    store(p.act + own * f + column, act[0]);
    store(p.act + (own + 8) * f + column, act[1]);
  }
}

// Sums of a row over a block's columns, from those of its lanes.
template <int kWarps>
struct RowSums {
  float values[kWarps][kSwigluChunkRows];
};

template <int kSteps>
__global__ void __launch_bounds__(Layout<kSteps>::kThreads, kSteps <= 2 ? 3 : 2)
    backward_kernel(const __grid_constant__ Backward p, const __grid_constant__ Chunks chunks) {
  using L = Layout<kSteps>;
  constexpr int kWidth = L::kWidth;
  __shared__ RowSums<L::kWarps> row_sums;
  const Lane lane;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int first = (static_cast<int>(blockIdx.x) * L::kWarps + warp) * L::kColumns;
  const Chunks::Chunk chunk = chunks.at(static_cast<int>(blockIdx.y));
  const int64_t f = p.columns;
  const int column = first + kWidth * lane.quad;
  if (first < p.columns) {
    Right<kSteps> gate_b, up_b, down_a;
    Sums<kSteps> dgate_b, dup_b, ddown_a;
    if (p.gate)
      gate_b.load_rows(lane, p.gate.outer + chunk.group * p.gate.outer_pitch + int64_t{first} * p.rank, p.rank);
    if (p.up) up_b.load_rows(lane, p.up.outer + chunk.group * p.up.outer_pitch + int64_t{first} * p.rank, p.rank);
    if (p.down) down_a.load_columns(lane, p.down.outer + chunk.group * p.down.outer_pitch + first, p.rank, p.columns);
#pragma unroll 1
    for (int row = chunk.begin; row < chunk.end; row += kTileRows) {
      const int64_t own = row + lane.group;
      Pack<bf16, kWidth> gate_rows[2], up_rows[2], dact_rows[2];
      load_rows(gate_rows, p.gate_up + own * 2 * f + column, 2 * f);
      load_rows(up_rows, p.gate_up + own * 2 * f + f + column, 2 * f);
      load_rows(dact_rows, p.dact + own * f + column, f);
      Left<kSteps> gate_u, up_u, v;
      if (p.gate) gate_u.load(lane, p.gate.inner + int64_t{row} * p.gate.pitch, p.gate.pitch, p.rank);
      if (p.up) up_u.load(lane, p.up.inner + int64_t{row} * p.up.pitch, p.up.pitch, p.rank);
      if (p.down) v.load(lane, p.down.inner + int64_t{row} * p.down.pitch, p.down.pitch, p.rank);
      const Left<kSteps> gate_turned = gate_u.transposed(), up_turned = up_u.transposed(), v_turned = v.transposed();
      const float weights[2] = {p.row_weights[own], p.row_weights[own + 8]};
      float dweights[2] = {};
#pragma unroll
      for (int t = 0; t < L::kTiles; ++t) {
        float gate[4], up[4], dact[4];
        load_tile(gate, gate_rows, t);
        load_tile(up, up_rows, t);
        load_tile(dact, dact_rows, t);
        if (p.gate) add_product(gate, gate_u, gate_b, t, p.scale);
        if (p.up) add_product(up, up_u, up_b, t, p.scale);
        if (p.down) add_product(dact, v, down_a, t, 1);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const SwigluGradient one = swiglu_gradient<bf16>(gate[i], up[i], weights[i / 2], dact[i]);
          dweights[i / 2] += one.dweight;
          gate_rows[i / 2].set(2 * t + i % 2, one.dgate);
          up_rows[i / 2].set(2 * t + i % 2, one.dup);
          dact_rows[i / 2].set(2 * t + i % 2, one.act);
        }
        if (p.wants_db && p.gate) dgate_b.add(gate_turned, gate_rows, t);
        if (p.wants_db && p.up) dup_b.add(up_turned, up_rows, t);
        if (p.wants_da) ddown_a.add(v_turned, dact_rows, t);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        bf16* to = p.dgate_up + (own + 8 * r) * 2 * f + column;
        store(to, gate_rows[r]);
        store(to + f, up_rows[r]);
        if (p.act) store(p.act + (own + 8 * r) * f + column, dact_rows[r]);
        dweights[r] += __shfl_xor_sync(~0u, dweights[r], 1);
        dweights[r] += __shfl_xor_sync(~0u, dweights[r], 2);
        if (lane.quad == 0) row_sums.values[warp][row - chunk.begin + lane.group + 8 * r] = dweights[r];
      }
    }
    const int inner = (p.wants_db ? (p.gate ? p.rank : 0) + (p.up ? p.rank : 0) : 0) + (p.wants_da ? p.rank : 0);
    float* sums = p.chunk_sums + int64_t{blockIdx.y} * inner * f + column - kWidth * lane.quad;
    if (p.wants_db && p.gate) dgate_b.store(lane, sums, p.rank, p.columns), sums += p.rank * f;
    if (p.wants_db && p.up) dup_b.store(lane, sums, p.rank, p.columns), sums += p.rank * f;
    if (p.wants_da) ddown_a.store(lane, sums, p.rank, p.columns);
  }
  __syncthreads();
  const int warps = min(L::kWarps, (p.columns - static_cast<int>(blockIdx.x) * L::kBlockColumns) / L::kColumns);
  for (int row = static_cast<int>(threadIdx.x); row < chunk.end - chunk.begin; row += L::kThreads) {
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += row_sums.values[w][row];
    p.row_sums[blockIdx.x * p.rows + chunk.begin + row] = sum;
  }
}

constexpr int kSumThreads = 256;

// drow_weights, of the rows of chunks.
__global__ void __launch_bounds__(kSumThreads) sum_rows_kernel(const float* row_sums, float* drow_weights, int64_t rows,
                                                               int blocks, const __grid_constant__ Chunks chunks) {
  const Chunks::Chunk chunk = chunks.at(static_cast<int>(blockIdx.x));
  for (int row = chunk.begin + static_cast<int>(threadIdx.x); row < chunk.end; row += kSumThreads) {
    float sum = 0;
    for (int b = 0; b < blocks; ++b) sum += row_sums[b * rows + row];
    drow_weights[row] = sum;
  }
}

// The sums of an expert's chunks for kVector ranks of one column, as a gradient of B's rows or of A's columns.
struct SumChunks {
  const float* chunk_sums;
  int inner, first, columns, rank;  // first: of inner
  void* to;                         // [E, ...]
  int64_t pitch;                    // from one expert to the next
  float scale;
  bool by_rows, accumulate;
};

template <class S>
__global__ void __launch_bounds__(kSumThreads)
    sum_chunks_kernel(const __grid_constant__ SumChunks p, const __grid_constant__ Chunks chunks) {
  constexpr int kRanks = 8;
  const int column = static_cast<int>(blockIdx.x) * kSumThreads + static_cast<int>(threadIdx.x);
  const int k = static_cast<int>(blockIdx.y) * kRanks, e = static_cast<int>(blockIdx.z);
  if (column >= p.columns) return;
  int begin = 0;
  for (int i = 0; i < e; ++i) begin += chunks.of_group(i);
  float sums[kRanks] = {};
  for (int chunk = begin; chunk < begin + chunks.of_group(e); ++chunk) {
    const float* from = p.chunk_sums + (int64_t{chunk} * p.inner + p.first + k) * p.columns + column;
#pragma unroll
    for (int i = 0; i < kRanks; ++i) sums[i] += from[int64_t{i} * p.columns];
  }
  S* to = static_cast<S*>(p.to) + e * p.pitch;
  to += p.by_rows ? int64_t{column} * p.rank + k : int64_t{k} * p.columns + column;
  const int64_t step = p.by_rows ? 1 : p.columns;
#pragma unroll
  for (int i = 0; i < kRanks; ++i) {
    const float sum = p.scale * sums[i];
    to[i * step] = from_float<S>(p.accumulate ? to_float(to[i * step]) + sum : sum);
  }
}

Chunks chunks_of(const RowGroups& groups, int64_t rows_of_chunk) {
  MT_CHECK(groups.groups <= kGroups);
  Chunks chunks = {static_cast<int>(groups.groups), static_cast<int>(rows_of_chunk), {}, {}};
  for (int64_t e = 0; e < groups.groups; ++e) {
    if (groups.count[e] == 0) continue;
    chunks.begin[e] = groups.begin[e];
    chunks.end[e] = static_cast<int>(groups.begin[e] + align_rows(groups.count[e]));
  }
  return chunks;
}
int all_of(const Chunks& chunks) {
  int all = 0;
  for (int e = 0; e < chunks.groups; ++e) all += chunks.of_group(e);
  return all;
}

// Zeroes the rows that no chunk has.
void zero_rest(Ctx& ctx, const Tensor& x, const Chunks& chunks) {
  if (!x) return;
  const auto zero_rows = [&](int64_t from, int64_t to) {
    if (to <= from) return;
    const Tensor rest = x.slice(from, to - from);
    check_cuda(cudaMemsetAsync(rest.data, 0, rest.bytes(), ctx.gpu->stream()), "adapted_swiglu");
  };
  int64_t end = 0;
  for (int e = 0; e < chunks.groups; ++e) {
    if (chunks.begin[e] == chunks.end[e]) continue;
    zero_rows(end, chunks.begin[e]);
    end = chunks.end[e];
  }
  zero_rows(end, x.rows());
}

// Of the module whose rows begin at `first`; empty where it has no pair.
Side side_of(const GateUpPairs& pairs, int64_t first) {
  if (!pairs.b) return {};
  const int64_t rank = pairs.b.shape[2];
  int64_t before = 0;
  for (int i = 0; i < pairs.modules.size; ++i) {
    if (pairs.modules.rows[i].first == first)
      return {elements<bf16>(pairs.u) + i * rank, static_cast<int>(pairs.u.shape[1]),
              elements<bf16>(pairs.b) + before * rank, pairs.b.shape[1] * rank};
    before += pairs.modules.rows[i].count;
  }
  return {};
}
Side side_of(const DownPair& pair) {
  if (!pair.a) return {};
  return {elements<bf16>(pair.v), static_cast<int>(pair.v.shape[1]), elements<bf16>(pair.a),
          pair.a.shape[1] * pair.a.shape[2]};
}

int rank_of(const GateUpPairs& pairs) {
  return pairs.b ? static_cast<int>(pairs.b.shape[2]) : 0;
}

// Calls op(Constant<kSteps>{}) for a rank.
template <class Op>
void on_rank(int rank, const Op& op) {
  if (rank <= 16) return op(Constant<1>{});
  if (rank <= 32) return op(Constant<2>{});
  op(Constant<4>{});
}

template <int kSteps>
dim3 grid_of(int columns, const Chunks& chunks) {
  return {static_cast<unsigned>(ceil_div(columns, Layout<kSteps>::kBlockColumns)),
          static_cast<unsigned>(all_of(chunks))};
}

// The gradients of one side from the chunks' sums, the next of which are at `first`.
void sum_chunks(Ctx& ctx, SumChunks p, const Tensor& to, const Chunks& chunks) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(p.columns, kSumThreads)), static_cast<unsigned>(p.rank / 8),
                    static_cast<unsigned>(chunks.groups));
  on_dtype(to.dtype,
           [&]<class S>(S) { sum_chunks_kernel<S><<<blocks, kSumThreads, 0, ctx.gpu->stream()>>>(p, chunks); });
}

}  // namespace

void adapted_swiglu_forward(Ctx& ctx, const AdaptedSwiglu& args) {
  if (args.act.elements() == 0) return;
  const Chunks chunks = chunks_of(args.groups, kForwardChunkRows);
  zero_rest(ctx, args.act, chunks);
  const int64_t f = args.act.shape[1];
  const Forward p = {.gate_up = elements<bf16>(args.gate_up),
                     .row_weights = elements<float>(args.row_weights),
                     .gate = side_of(args.gate_up_pairs, 0),
                     .up = side_of(args.gate_up_pairs, f),
                     .act = elements<bf16>(args.act),
                     .columns = static_cast<int>(f),
                     .rank = rank_of(args.gate_up_pairs),
                     .scale = static_cast<float>(args.gate_up_pairs.scale)};
  if (all_of(chunks) == 0) return;
  on_rank(p.rank, [&](auto steps) {
    const dim3 blocks = grid_of<steps()>(p.columns, chunks);
    forward_kernel<steps()><<<blocks, Layout<steps()>::kThreads, 0, ctx.gpu->stream()>>>(p, chunks);
  });
  check_cuda(cudaGetLastError(), "adapted_swiglu_forward_kernel");
}

void adapted_swiglu_backward(Ctx& ctx, const AdaptedSwigluBackward& args, const AdaptedSwigluScratch& scratch) {
  if (args.dact.elements() == 0) return;
  const Chunks chunks = chunks_of(args.groups, kSwigluChunkRows);
  for (const Tensor& result : {args.dgate_up, args.act, args.drow_weights}) zero_rest(ctx, result, chunks);
  const int64_t f = args.dact.shape[1];
  const GateUpPairs& up = args.gate_up_pairs;
  const bool has_down = static_cast<bool>(args.down_pair.a);
  MT_CHECK(!has_down || !up.b || args.down_pair.a.shape[1] == rank_of(up));
  const Backward p = {.gate_up = elements<bf16>(args.gate_up),
                      .dact = elements<bf16>(args.dact),
                      .row_weights = elements<float>(args.row_weights),
                      .gate = side_of(up, 0),
                      .up = side_of(up, f),
                      .down = side_of(args.down_pair),
                      .dgate_up = elements<bf16>(args.dgate_up),
                      .act = elements<bf16>(args.act),
                      .row_sums = elements<float>(scratch.row_sums),
                      .chunk_sums = elements<float>(scratch.chunk_sums),
                      .rows = args.dact.rows(),
                      .columns = static_cast<int>(f),
                      .rank = has_down ? static_cast<int>(args.down_pair.a.shape[1]) : rank_of(up),
                      .scale = static_cast<float>(up.scale),
                      .wants_db = static_cast<bool>(args.db),
                      .wants_da = static_cast<bool>(args.da)};
  if (all_of(chunks) > 0)
    on_rank(p.rank, [&](auto steps) {
      const dim3 blocks = grid_of<steps()>(p.columns, chunks);
      backward_kernel<steps()><<<blocks, Layout<steps()>::kThreads, 0, ctx.gpu->stream()>>>(p, chunks);
      sum_rows_kernel<<<blocks.y, kSumThreads, 0, ctx.gpu->stream()>>>(p.row_sums, elements<float>(args.drow_weights),
                                                                       p.rows, static_cast<int>(blocks.x), chunks);
    });
  SumChunks sums = {.chunk_sums = p.chunk_sums,
                    .inner = scratch.chunk_sums ? static_cast<int>(scratch.chunk_sums.shape[1]) : 0,
                    .first = 0,
                    .columns = p.columns,
                    .rank = p.rank};
  if (args.db) {
    sums.pitch = up.b.shape[1] * p.rank, sums.scale = p.scale;
    sums.by_rows = true, sums.accumulate = args.accumulate_db;
    sums.to = args.db.data;
    for (int i = 0; i < up.modules.size; ++i) {
      sum_chunks(ctx, sums, args.db, chunks);
      sums.first += p.rank;
      sums.to = static_cast<char*>(sums.to) + up.modules.rows[i].count * p.rank * dtype_size(args.db.dtype);
    }
  }
  if (args.da) {
    sums.to = args.da.data, sums.pitch = args.da.shape[1] * f, sums.scale = 1;
    sums.by_rows = false, sums.accumulate = args.accumulate_da;
    sum_chunks(ctx, sums, args.da, chunks);
  }
  check_cuda(cudaGetLastError(), "adapted_swiglu_backward_kernel");
}

}  // namespace mixtune::cuda
