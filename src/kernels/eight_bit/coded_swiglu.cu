// SwiGLU into codes on a GPU: a block of threads takes 128 rows and 128 of F columns. Bound by memory.
#include "kernels/eight_bit/coded_tile.cuh"
#include "kernels/eight_bit/cuda_ops.h"
#include "kernels/swiglu_math.cuh"

namespace mixtune::cuda {

namespace {

using Eight = Pack<bf16, kChunk>;

__device__ Eight eight(const uint4& bits) {
  return *reinterpret_cast<const Eight*>(&bits);
}
__device__ uint4 bits_of(const Eight& values) {
  return *reinterpret_cast<const uint4*>(&values);
}

// This thread's chunks of the tile's rows; 0 of those that are not live.
class ChunkReader {
 public:
  __device__ ChunkReader(const bf16* x, const TilePlace& at, int64_t stride, int64_t first_column)
      : from_(x + (at.top + tile_row(0)) * stride + first_column + at.left + tile_chunk() * kChunk),
        step_(kPassRows * stride),
        live_(at.live) {}
  __device__ uint4 operator()(int pass) const {
    return tile_row(pass) < live_ ? *reinterpret_cast<const uint4*>(from_ + pass * step_) : uint4{};
  }

 private:
  const bf16* from_;
  int64_t step_;
  int live_;
};

// The weight of the row of a pass, or 0.
__device__ float row_weight(const float* weights, const TilePlace& at, int pass) {
  return tile_row(pass) < at.live ? weights[at.top + tile_row(pass)] : 0;
}

struct Forward {
  const bf16* gate_up;
  const float* row_weights;
  int64_t rows, columns;  // R, F
  GroupTable groups;
  CodesOut act_rows;
};

template <bool AnyScale>
__global__ void __launch_bounds__(kTileThreads, 2) forward_kernel(const __grid_constant__ Forward a) {
  TilePlace at;
  if (!at.find(a.groups, a.rows, a.columns)) return;
  const ChunkReader gates(a.gate_up, at, 2 * a.columns, 0), ups(a.gate_up, at, 2 * a.columns, a.columns);
  uint4 act[kPasses], up[kPasses];
#pragma unroll
  for (int p = 0; p < kPasses; ++p) act[p] = gates(p), up[p] = ups(p);
  uint32_t most[kPasses];
#pragma unroll
  for (int p = 0; p < kPasses; ++p) {
    const float weight = row_weight(a.row_weights, at, p);
    const Eight g = eight(act[p]), u = eight(up[p]);
    Eight out;
#pragma unroll
    for (int c = 0; c < kChunk; ++c) out.set(c, swiglu<bf16>(g[c], u[c], weight));
    act[p] = bits_of(out);
    most[p] = finish_chunk(act[p]);
  }
  RowWriter<AnyScale> rows(at, a.act_rows);
#pragma unroll
  for (int p = 0; p < kPasses; p += 2) {
    const uint32_t pair = lanes_max(halves(most[p], most[p + 1]), 1, kChunks / 2);
    rows.write(p, act[p], pair & 0xFFFF);
    rows.write(p + 1, act[p + 1], pair >> 16);
  }
  rows.write_scales(at, a.act_rows);
}

struct Backward {
  const bf16* gate_up;
  const float* row_weights;
  const bf16* dact;
  int64_t rows, columns;  // R, F
  GroupTable groups;
  CodesOut dgate_up_rows, dgate_up_columns, act_turned;
  float* dweight_parts;  // [F / 128, R]
};

struct BackwardShared {
  SharedTile dgate, dup, act;
  BlockMax act_most;
};

// One chunk's gradients and activation; the row weight's gradient of these columns.
struct ChunkGradient {
  uint4 dgate, dup, act;
  float dweight;
};

__device__ ChunkGradient chunk_gradient(const uint4& gate, const uint4& up, const uint4& dact, float weight) {
  const Eight g = eight(gate), u = eight(up), d = eight(dact);
  Eight dg, du, again;
  float dweight = 0;
#pragma unroll
  for (int c = 0; c < kChunk; ++c) {
    const SwigluGradient one = swiglu_gradient<bf16>(g[c], u[c], weight, d[c]);
    dg.set(c, one.dgate);
    du.set(c, one.dup);
    again.set(c, one.act);
    dweight += one.dweight;
  }
  return {bits_of(dg), bits_of(du), bits_of(again), dweight};
}

template <bool AnyScale>
__global__ void __launch_bounds__(kTileThreads, 2) backward_kernel(const __grid_constant__ Backward a) {
  extern __shared__ uint4 memory[];
  auto& shared = *reinterpret_cast<BackwardShared*>(memory);
  TilePlace at;
  if (!at.find(a.groups, a.rows, a.columns)) return;
  TilePlace at_gate = at, at_up = at;  // in dgate_up
  at_gate.group.columns = at_up.group.columns = 2 * a.columns;
  at_up.left += a.columns;
  const ChunkReader gates(a.gate_up, at, 2 * a.columns, 0), ups(a.gate_up, at, 2 * a.columns, a.columns),
      dacts(a.dact, at, a.columns, 0);
  RowWriter<AnyScale> gate_rows(at_gate, a.dgate_up_rows), up_rows(at_up, a.dgate_up_rows);
  uint32_t act_most = 0;
  float dweight = 0;  // of the row of the pass that is this thread's
#pragma unroll
  for (int p = 0; p < kPasses; ++p) {
    const int row = tile_row(p);
    ChunkGradient one = chunk_gradient(gates(p), ups(p), dacts(p), row_weight(a.row_weights, at, p));
    for (int lane = kChunks / 2; lane > 0; lane /= 2) one.dweight += __shfl_xor_sync(~0u, one.dweight, lane);
    if (tile_chunk() == p) dweight = one.dweight;
    const uint32_t pair = lanes_max(halves(finish_chunk(one.dgate), finish_chunk(one.dup)), 1, kChunks / 2);
    act_most = max(act_most, finish_chunk(one.act));
    gate_rows.write(p, one.dgate, pair & 0xFFFF);
    up_rows.write(p, one.dup, pair >> 16);
    shared.dgate.set(row, one.dgate);
    shared.dup.set(row, one.dup);
    shared.act.set(row, one.act);
  }
  gate_rows.write_scales(at_gate, a.dgate_up_rows);
  up_rows.write_scales(at_up, a.dgate_up_rows);
  if (tile_chunk() < kPasses) a.dweight_parts[at.left / kTileSide * a.rows + at.top + tile_row(tile_chunk())] = dweight;
  shared.act_most.give(act_most);
  __syncthreads();
  write_columns<AnyScale>(at_gate, shared.dgate, a.dgate_up_columns);
  write_columns<AnyScale>(at_up, shared.dup, a.dgate_up_columns);
  write_turned<AnyScale>(at, shared.act, shared.act_most.take(), a.act_turned);
}

constexpr int kSumThreads = 128;

// drow_weights [R] = the sum of the parts, in their order.
__global__ void __launch_bounds__(kSumThreads) sum_kernel(const float* parts, int64_t rows, int64_t count,
                                                          const __grid_constant__ GroupTable groups, float* sums) {
  const int64_t row = blockIdx.x * int64_t{kSumThreads} + threadIdx.x;
  bool live = false;
  for (int e = 0; e < groups.groups; ++e) live |= row >= groups.begin[e] && row < groups.begin[e] + groups.count[e];
  float sum = 0;
  for (int64_t i = 0; i < count && live; ++i) sum += parts[i * rows + row];
  sums[row] = sum;
}

}  // namespace

void coded_swiglu_forward(Ctx& ctx, const CodedSwigluForward& args) {
  const int64_t rows = args.gate_up.rows(), columns = args.gate_up.shape[1] / 2;
  if (rows == 0) return;
  const Forward a{.gate_up = elements<bf16>(args.gate_up),
                  .row_weights = elements<float>(args.row_weights),
                  .rows = rows,
                  .columns = columns,
                  .groups = group_table(args.groups),
                  .act_rows = CodesOut(args.act_rows)};
  on_scale(args.scale, [&](auto any) {
    forward_kernel<any()><<<tiles_of(rows, columns), kTileThreads, 0, ctx.gpu->stream()>>>(a);
  });
  check_cuda(cudaGetLastError(), "forward_kernel of coded SwiGLU");
}

void coded_swiglu_backward(Ctx& ctx, const CodedSwigluBackward& args, const Tensor& parts) {
  const int64_t rows = args.dact.rows(), columns = args.dact.shape[1];
  if (rows == 0) return;
  const Backward a{.gate_up = elements<bf16>(args.gate_up),
                   .row_weights = elements<float>(args.row_weights),
                   .dact = elements<bf16>(args.dact),
                   .rows = rows,
                   .columns = columns,
                   .groups = group_table(args.groups),
                   .dgate_up_rows = CodesOut(args.dgate_up_rows),
                   .dgate_up_columns = CodesOut(args.dgate_up_columns),
                   .act_turned = CodesOut(args.act_turned),
                   .dweight_parts = elements<float>(parts)};
  on_scale(args.scale, [&](auto any) {
    constexpr auto kKernel = backward_kernel<any()>;
    constexpr int kShared = static_cast<int>(sizeof(BackwardShared));
    check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared), "coded SwiGLU");
    kKernel<<<tiles_of(rows, columns), kTileThreads, kShared, ctx.gpu->stream()>>>(a);
  });
  check_cuda(cudaGetLastError(), "backward_kernel of coded SwiGLU");
  sum_kernel<<<static_cast<unsigned>(rows / kSumThreads), kSumThreads, 0, ctx.gpu->stream()>>>(
      elements<float>(parts), rows, columns / kScaleBlock, a.groups, elements<float>(args.drow_weights));
  check_cuda(cudaGetLastError(), "sum_kernel of coded SwiGLU");
}

}  // namespace mixtune::cuda
