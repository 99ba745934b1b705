#include "kernels/moe/adapted_swiglu.cuh"
#include "kernels/swiglu_math.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kForwardChunkRows = 512;

struct Forward {
  Matrix gate_up;
  const float* row_weights;
  PairSide gate, up;
  bf16* act;
  int columns, rank;  // F
  float scale;
};

template <int kSteps>
struct ForwardMemory {
  using L = Layout<kSteps>;
  struct Stage {
    char gate[L::Values::kBytes], up[L::Values::kBytes];
    char gate_u[L::Inner::kBytes], up_u[L::Inner::kBytes];
  };
  Stage stages[L::kStages];
  char gate_b[L::Rows::kBytes], up_b[L::Rows::kBytes];
};

template <int kSteps>
__global__ void __launch_bounds__(Layout<kSteps>::kThreads)
    forward_kernel(const __grid_constant__ Forward p, const __grid_constant__ Chunks chunks) {
  using L = Layout<kSteps>;
  using Memory = ForwardMemory<kSteps>;
  extern __shared__ uint4 shared[];
  Memory& memory = *reinterpret_cast<Memory*>(shared);
  const Lane lane;
  const int first = static_cast<int>(blockIdx.x) * L::kBlockColumns, own = lane.warp * L::kColumns;
  const Chunks::Chunk chunk = chunks.at(static_cast<int>(blockIdx.y));
  const auto load = [&](int stage, int step) {
    typename Memory::Stage& to = memory.stages[stage];
    const int row = chunk.begin + step * kTileRows;
    L::Values::template load<L::kThreads>(ptx::shared_address(to.gate), p.gate_up, row, first);
    L::Values::template load<L::kThreads>(ptx::shared_address(to.up), p.gate_up, row, p.columns + first);
    if (p.gate) L::Inner::template load<L::kThreads>(ptx::shared_address(to.gate_u), p.gate.inner, row, 0);
    if (p.up) L::Inner::template load<L::kThreads>(ptx::shared_address(to.up_u), p.up.inner, row, 0);
  };
  const auto load_outer = [&](char* to, const PairSide& side) {
    const Matrix b = side.rows(chunk.group, p.columns, p.rank);
    if (side) L::Rows::template load<L::kThreads>(ptx::shared_address(to), b, first, 0);
  };
  load_outer(memory.gate_b, p.gate);  // with the first step's rows
  load_outer(memory.up_b, p.up);
  pipeline<L::kStages>((chunk.end - chunk.begin) / kTileRows, load, [&](int stage, int step) {
    typename Memory::Stage& at = memory.stages[stage];
    const int row = chunk.begin + step * kTileRows;
    if (first + own >= p.columns) return;
    uint32_t gate_u[kSteps][4], up_u[kSteps][4];
    load_inner<kSteps, false>(gate_u, ptx::shared_address(at.gate_u));
    load_inner<kSteps, false>(up_u, ptx::shared_address(at.up_u));
    const float weights[2] = {p.row_weights[row + lane.group], p.row_weights[row + lane.group + 8]};
#pragma unroll
    for (int n = own; n < own + L::kColumns; n += 16) {
      float gate[2][4], up[2][4], act[2][4];
      load_values<typename L::Values>(gate, at.gate, lane, n);
      load_values<typename L::Values>(up, at.up, lane, n);
      if (p.gate) add_product<kSteps, true>(gate, gate_u, ptx::shared_address(memory.gate_b), n, p.scale);
      if (p.up) add_product<kSteps, true>(up, up_u, ptx::shared_address(memory.up_b), n, p.scale);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        act[i / 4][i % 4] = swiglu<bf16>(gate[i / 4][i % 4], up[i / 4][i % 4], weights[i % 4 / 2]);
      store_values<typename L::Values>(act, at.gate, lane, n);
    }
    __syncwarp();
    copy_out<L>(at.gate, p.act + int64_t{row} * p.columns + first, p.columns);
  });
}

}  // namespace

void adapted_swiglu_forward(Ctx& ctx, const AdaptedSwiglu& args) {
  if (args.act.elements() == 0) return;
  const Chunks chunks = chunks_of(args.groups, kForwardChunkRows);
  zero_rest(ctx, args.act, chunks);
  if (chunks.all() == 0) return;
  const int64_t f = args.act.shape[1];
  const GateUpPairs& pairs = args.gate_up_pairs;
  const Forward p = {.gate_up = matrix_of(args.gate_up),
                     .row_weights = elements<float>(args.row_weights),
                     .gate = side_of(pairs, 0),
                     .up = side_of(pairs, f),
                     .act = elements<bf16>(args.act),
                     .columns = static_cast<int>(f),
                     .rank = pairs.b ? static_cast<int>(pairs.b.shape[2]) : 0,
                     .scale = static_cast<float>(pairs.scale)};
  on_rank(p.rank, [&](auto steps) {
    using L = Layout<steps()>;
    constexpr int kBytes = sizeof(ForwardMemory<steps()>);
    MT_CHECK(allow_shared_memory(ctx, forward_kernel<steps()>, kBytes));
    forward_kernel<steps()><<<grid_of<steps()>(p.columns, chunks), L::kThreads, kBytes, ctx.gpu->stream()>>>(p, chunks);
  });
  check_cuda(cudaGetLastError(), "adapted_swiglu_forward_kernel");
}

}  // namespace mixtune::cuda
