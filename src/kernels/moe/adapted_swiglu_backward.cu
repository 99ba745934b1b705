// The backward of adapted_swiglu.h. A warp's sums of gradients over the rows of a chunk stay in its registers.
#include "kernels/moe/adapted_swiglu.cuh"
#include "kernels/swiglu_math.cuh"

namespace mixtune::cuda {

namespace {

struct Backward : GateUpOperands {
  Matrix dact;
  PairSide down;
  bf16 *dgate_up, *act;
  float *row_sums, *chunk_sums;
  bool wants_db, wants_da;
};

template <int kSteps>
struct BackwardMemory {
  using L = Layout<kSteps>;
  struct Stage : GateUpStage<kSteps> {
    char dact[L::Values::kBytes], v[L::Inner::kBytes];
  };
  Stage stages[L::kStages];
  GateUpRight<kSteps> right;
  char down_a[L::Columns::kBytes];
};

// The sums over rows of u^T values or v^T values, of the warp's columns: [rank, kColumns], the transpose of B's
// gradient.
template <int kSteps>
struct Sums {
  using L = Layout<kSteps>;
  float c[kSteps][L::kTiles][4] = {};

  __device__ void add(const char* inner, const char* values, int own) {
    uint32_t turned[kSteps][4];
    load_inner<kSteps, true>(turned, ptx::shared_address(inner));
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
      multiply_right<typename L::Values, false>(c[s], turned[s], L::Values::at(ptx::shared_address(values), 0, own), 0);
  }
  // To rows [rank, columns], of which the first column is the warp's.
  __device__ void store(const Lane& lane, float* to, int rank, int columns) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = 16 * s + 8 * half + lane.group;
        if (row >= rank) continue;
#pragma unroll
        for (int t = 0; t < L::kTiles; ++t)
          *reinterpret_cast<float2*>(to + int64_t{row} * columns + 8 * t + 2 * lane.quad) =
              make_float2(c[s][t][2 * half], c[s][t][2 * half + 1]);
      }
  }
};

// Adds what is missing, takes the gradients of the warp's columns of 16 rows, and leaves dgate, dup and the activations
// in their places. dweights: of the lane's two rows the sums over its elements.
template <int kSteps>
__device__ void differentiate(const Backward& p, BackwardMemory<kSteps>& memory,
                              typename BackwardMemory<kSteps>::Stage& at, const Lane& lane, const float (&weights)[2],
                              float (&dweights)[2]) {
  using L = Layout<kSteps>;
  using Values = typename L::Values;
  uint32_t gate_u[kSteps][4], up_u[kSteps][4], v[kSteps][4];
  load_inner<kSteps, false>(gate_u, ptx::shared_address(at.gate_u));
  load_inner<kSteps, false>(up_u, ptx::shared_address(at.up_u));
  load_inner<kSteps, false>(v, ptx::shared_address(at.v));
  const int own = lane.warp * L::kColumns;
#pragma unroll
  for (int n = own; n < own + L::kColumns; n += 16) {
    float gate[2][4], up[2][4], dact[2][4];
    load_values<Values>(gate, at.gate, lane, n);
    load_values<Values>(up, at.up, lane, n);
    load_values<Values>(dact, at.dact, lane, n);
    if (p.gate) add_product<kSteps, true>(gate, gate_u, ptx::shared_address(memory.right.gate_b), n, p.scale);
    if (p.up) add_product<kSteps, true>(up, up_u, ptx::shared_address(memory.right.up_b), n, p.scale);
    if (p.down) add_product<kSteps, false>(dact, v, ptx::shared_address(memory.down_a), n, 1);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float &g = gate[i / 4][i % 4], &u = up[i / 4][i % 4], &d = dact[i / 4][i % 4];
      const SwigluGradient one = swiglu_gradient<bf16>(g, u, weights[i % 4 / 2], d);
      dweights[i % 4 / 2] += one.dweight;
      g = one.dgate, u = one.dup, d = one.act;
    }
    store_values<Values>(gate, at.gate, lane, n);
    store_values<Values>(up, at.up, lane, n);
    store_values<Values>(dact, at.dact, lane, n);
  }
}

template <int kSteps>
__global__ void __launch_bounds__(Layout<kSteps>::kThreads, kSteps == 1   ? 4
                                                            : kSteps == 2 ? 3
                                                                          : 2)
    backward_kernel(const __grid_constant__ Backward p, const __grid_constant__ Chunks chunks) {
  using L = Layout<kSteps>;
  using Memory = BackwardMemory<kSteps>;
  extern __shared__ uint4 shared[];
  Memory& memory = *reinterpret_cast<Memory*>(shared);
  const Lane lane;
  const int first = static_cast<int>(blockIdx.x) * L::kBlockColumns, own = lane.warp * L::kColumns;
  const int64_t f = p.columns, rows = p.dact.rows;
  const Chunks::Chunk chunk = chunks.at(static_cast<int>(blockIdx.y));
  const auto load = [&](int stage, int step) {
    typename Memory::Stage& to = memory.stages[stage];
    const int row = chunk.begin + step * kTileRows;
    to.load(p, row, first);
    L::Values::template load<L::kThreads>(ptx::shared_address(to.dact), p.dact, row, first);
    if (p.down) L::Inner::template load<L::kThreads>(ptx::shared_address(to.v), p.down.inner, row, 0);
  };
  // With the first step's rows come B and A.
  memory.right.load(p, chunk.group, first);
  const Matrix down_a = p.down.columns(chunk.group, p.columns, p.rank);
  if (p.down) L::Columns::template load<L::kThreads>(ptx::shared_address(memory.down_a), down_a, 0, first);
  Sums<kSteps> dgate_b, dup_b, ddown_a;
  pipeline<L::kStages>((chunk.end - chunk.begin) / kTileRows, load, [&](int stage, int step) {
    if (first + own >= p.columns) return;
    typename Memory::Stage& at = memory.stages[stage];
    const int64_t row = chunk.begin + step * kTileRows;
    const float weights[2] = {p.row_weights[row + lane.group], p.row_weights[row + lane.group + 8]};
    float dweights[2] = {};
    differentiate<kSteps>(p, memory, at, lane, weights, dweights);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      dweights[r] += __shfl_xor_sync(~0u, dweights[r], 1);
      dweights[r] += __shfl_xor_sync(~0u, dweights[r], 2);
      if (lane.quad == 0) p.row_sums[(first + own) / L::kColumns * rows + row + lane.group + 8 * r] = dweights[r];
    }
    __syncwarp();
    if (p.wants_db && p.gate) dgate_b.add(at.gate_u, at.gate, own);
    if (p.wants_db && p.up) dup_b.add(at.up_u, at.up, own);
    if (p.wants_da) ddown_a.add(at.v, at.dact, own);
    copy_out<L>(at.gate, p.dgate_up + row * 2 * f + first, 2 * f);
    copy_out<L>(at.up, p.dgate_up + row * 2 * f + f + first, 2 * f);
    if (p.act) copy_out<L>(at.dact, p.act + row * f + first, f);
  });
  if (first + own >= p.columns) return;
  const int inner = (p.wants_db ? (p.gate ? p.rank : 0) + (p.up ? p.rank : 0) : 0) + (p.wants_da ? p.rank : 0);
  float* sums = p.chunk_sums + int64_t{blockIdx.y} * inner * f + first + own;
  if (p.wants_db && p.gate) dgate_b.store(lane, sums, p.rank, p.columns), sums += p.rank * f;
  if (p.wants_db && p.up) dup_b.store(lane, sums, p.rank, p.columns), sums += p.rank * f;
  if (p.wants_da) ddown_a.store(lane, sums, p.rank, p.columns);
}

constexpr int kSumThreads = 256;

// drow_weights: 32 rows of a block, 8 threads each.
__global__ void __launch_bounds__(kSumThreads) sum_rows_kernel(const float* row_sums, float* drow_weights, int64_t rows,
                                                               int count, const __grid_constant__ ThinGroups groups) {
  constexpr int kParts = kSumThreads / kWarp;
  __shared__ float parts[kParts][kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, part = static_cast<int>(threadIdx.x) / kWarp;
  const int row = static_cast<int>(blockIdx.x) * kWarp + lane;
  float sum = 0;
  if (groups.of_row(row) < groups.size)
    for (int i = part; i < count; i += kParts) sum += row_sums[i * rows + row];
  parts[part][lane] = sum;
  __syncthreads();
  if (part > 0) return;
  for (int i = 1; i < kParts; ++i) sum += parts[i][lane];
  drow_weights[row] = sum;
}

// The sums of an expert's chunks for 8 ranks of one column, as a gradient of B's rows or of A's columns.
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

PairSide side_of(const DownPair& pair) {
  if (!pair.a) return {};
  return {matrix_of(pair.v), elements<bf16>(pair.a), pair.a.shape[1] * pair.a.shape[2]};
}

// The gradients of one side from the chunks' sums, the next of which are at `first`.
void sum_chunks(Ctx& ctx, SumChunks p, const Tensor& to, const Chunks& chunks) {
  const dim3 blocks(static_cast<unsigned>(ceil_div(p.columns, kSumThreads)), static_cast<unsigned>(p.rank / 8),
                    static_cast<unsigned>(chunks.groups.size));
  on_dtype(to.dtype,
           [&]<class S>(S) { sum_chunks_kernel<S><<<blocks, kSumThreads, 0, ctx.gpu->stream()>>>(p, chunks); });
}

}  // namespace

void adapted_swiglu_backward(Ctx& ctx, const AdaptedSwigluBackward& args, const AdaptedSwigluScratch& scratch) {
  const Chunks chunks = {thin_groups(args.groups), static_cast<int>(kSwigluChunkRows)};
  for (const Tensor& result : {args.dgate_up, args.act}) zero_rest(ctx, result, chunks.groups);
  const int64_t f = args.dact.shape[1];
  const GateUpPairs& up = args.gate_up_pairs;
  Backward p = {gate_up_operands(args.gate_up, args.row_weights, up)};
  if (args.down_pair.a) {
    p.down = side_of(args.down_pair);
    MT_CHECK(!up.b || p.rank == args.down_pair.a.shape[1]);
    p.rank = static_cast<int>(args.down_pair.a.shape[1]);
  }
  p.dact = matrix_of(args.dact);
  p.dgate_up = elements<bf16>(args.dgate_up);
  p.act = elements<bf16>(args.act);
  p.row_sums = elements<float>(scratch.row_sums);
  p.chunk_sums = elements<float>(scratch.chunk_sums);
  p.wants_db = static_cast<bool>(args.db);
  p.wants_da = static_cast<bool>(args.da);
  if (chunks.all() > 0)
    on_rank(p.rank, [&](auto steps) {
      using L = Layout<steps()>;
      constexpr int kBytes = sizeof(BackwardMemory<steps()>);
      MT_CHECK(allow_shared_memory(ctx, backward_kernel<steps()>, kBytes));
      backward_kernel<steps()>
          <<<grid_of<steps()>(p.columns, chunks), L::kThreads, kBytes, ctx.gpu->stream()>>>(p, chunks);
    });
  if (p.dact.rows > 0)
    sum_rows_kernel<<<static_cast<unsigned>(p.dact.rows / kWarp), kSumThreads, 0, ctx.gpu->stream()>>>(
        p.row_sums, elements<float>(args.drow_weights), p.dact.rows, static_cast<int>(scratch.row_sums.shape[0]),
        chunks.groups);
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
