#include "kernels/moe/adapted_swiglu.cuh"
#include "kernels/swiglu_math.cuh"

namespace mixtune::cuda {

namespace {

constexpr int kForwardChunkRows = 512;

template <int kSteps>
struct ForwardMemory {
  GateUpStage<kSteps> stages[Layout<kSteps>::kStages];
  GateUpRight<kSteps> right;
};

template <int kSteps>
__global__ void __launch_bounds__(Layout<kSteps>::kThreads)
    forward_kernel(const __grid_constant__ GateUpOperands p, bf16* act_rows, const __grid_constant__ Chunks chunks) {
  using L = Layout<kSteps>;
  using Memory = ForwardMemory<kSteps>;
  extern __shared__ uint4 shared[];
  Memory& memory = *reinterpret_cast<Memory*>(shared);
  const Lane lane;
  const int first = static_cast<int>(blockIdx.x) * L::kBlockColumns, own = lane.warp * L::kColumns;
  const Chunks::Chunk chunk = chunks.at(static_cast<int>(blockIdx.y));
  memory.right.load(p, chunk.group, first);  // with the first step's rows
  const auto load = [&](int stage, int step) {
    memory.stages[stage].load(p, chunk.begin + step * kTileRows, first);
  };
  pipeline<L::kStages>((chunk.end - chunk.begin) / kTileRows, load, [&](int stage, int step) {
    GateUpStage<kSteps>& at = memory.stages[stage];
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
      if (p.gate) add_product<kSteps, true>(gate, gate_u, ptx::shared_address(memory.right.gate_b), n, p.scale);
      if (p.up) add_product<kSteps, true>(up, up_u, ptx::shared_address(memory.right.up_b), n, p.scale);
#pragma unroll
      for (int i = 0; i < 8; ++i)
        act[i / 4][i % 4] = swiglu<bf16>(gate[i / 4][i % 4], up[i / 4][i % 4], weights[i % 4 / 2]);
      store_values<typename L::Values>(act, at.gate, lane, n);
    }
    __syncwarp();
    copy_out<L>(at.gate, act_rows + int64_t{row} * p.columns + first, p.columns);
  });
}

}  // namespace

void adapted_swiglu_forward(Ctx& ctx, const AdaptedSwiglu& args) {
  if (args.act.elements() == 0) return;
  const Chunks chunks = {thin_groups(args.groups), kForwardChunkRows};
  zero_rest(ctx, args.act, chunks.groups);
  if (chunks.all() == 0) return;
  const GateUpOperands p = gate_up_operands(args.gate_up, args.row_weights, args.gate_up_pairs);
  on_rank(p.rank, [&](auto steps) {
    using L = Layout<steps()>;
    constexpr int kBytes = sizeof(ForwardMemory<steps()>);
    MT_CHECK(allow_shared_memory(ctx, forward_kernel<steps()>, kBytes));
    forward_kernel<steps()><<<grid_of<steps()>(p.columns, chunks), L::kThreads, kBytes, ctx.gpu->stream()>>>(
        p, elements<bf16>(args.act), chunks);
  });
  check_cuda(cudaGetLastError(), "adapted_swiglu_forward_kernel");
}

}  // namespace mixtune::cuda
