#include "kernels/moe/adapted_swiglu.h"

#include "kernels/gemm/thin_gemm.h"
#include "kernels/moe/adapted_swiglu_cpu.h"
#include "kernels/moe/cuda_ops.h"
#include "kernels/on_device.h"

namespace mixtune {

namespace {

using cuda::AdaptedSwigluScratch, cuda::kSwigluChunkRows;

// Those of a GPU's kernels: bf16, ranks by vectors, columns by warps. A CPU follows it but for the dtype.
constexpr int64_t kRankMultiple = 8, kMostRank = 64, kColumnMultiple = 32;

void check_pairs(const GateUpPairs& pairs, const Tensor& gate_up, int64_t groups) {
  if (!pairs.b) return;
  const int64_t f = gate_up.shape[1] / 2;
  MT_CHECK(pairs.modules.size > 0 && pairs.modules.size <= 2);
  for (int i = 0; i < pairs.modules.size; ++i) {
    const AdaptedRows& rows = pairs.modules.rows[i];
    MT_CHECK(rows.count == f && (rows.first == 0 || rows.first == f));
  }
  MT_CHECK(pairs.b.shape.rank() == 3 && pairs.b.shape[0] == groups && pairs.b.shape[1] == pairs.modules.row_count());
  MT_CHECK((pairs.u.shape == Shape{gate_up.rows(), pairs.modules.size * pairs.b.shape[2]}));
}

AdaptedSwigluScratch push_scratch(Ctx& ctx, const AdaptedSwigluBackward& args) {
  const int64_t rows = args.dact.rows(), f = args.dact.shape[1];
  const int64_t inner = (args.db ? args.gate_up_pairs.u.shape[1] : 0) + (args.da ? args.down_pair.a.shape[1] : 0);
  const int64_t rank = args.down_pair.a ? args.down_pair.a.shape[1] : args.gate_up_pairs.b.shape[2];
  const int64_t chunks = rows / kSwigluChunkRows + args.groups.groups;  // at most
  AdaptedSwigluScratch scratch;
  scratch.row_sums = ctx.stack.push("sums of rows", {f / cuda::swiglu_warp_columns(rank), rows}, DType::kF32);
  if (inner > 0) scratch.chunk_sums = ctx.stack.push("sums of adapters", {chunks, inner, f}, DType::kF32);
  return scratch;
}

}  // namespace

bool adapted_swiglu_takes(const Ctx& ctx, const AdaptedSwigluForm& form) {
  if (ctx.like_gpu() && (form.dtype != DType::kBF16 || form.experts > cuda::kThinGroups)) return false;
  return form.rank % kRankMultiple == 0 && form.rank <= kMostRank && form.ffn % kColumnMultiple == 0;
}

void adapted_swiglu_forward(Ctx& ctx, const AdaptedSwiglu& args) {
  MT_CHECK(args.gate_up.shape[1] == 2 * args.act.shape[1]);
  check_pairs(args.gate_up_pairs, args.gate_up, args.groups.groups);
  on_device(
      ctx, "SwiGLU", args.act.dtype, [&]<class S>(S) { cpu::adapted_swiglu_forward<S>(args); },
      [&] { cuda::adapted_swiglu_forward(ctx, args); });
}

void adapted_swiglu_backward(Ctx& ctx, const AdaptedSwigluBackward& args) {
  MT_CHECK(args.dgate_up.shape == args.gate_up.shape);
  check_pairs(args.gate_up_pairs, args.gate_up, args.groups.groups);
  if (args.down_pair.a) MT_CHECK(args.down_pair.a.shape[2] == args.dact.shape[1]);
  MT_CHECK(!args.db || args.db.shape == args.gate_up_pairs.b.shape);
  MT_CHECK(!args.da || args.da.shape == args.down_pair.a.shape);
  const Frame frame(ctx);
  AdaptedSwigluScratch scratch;
  if (ctx.like_gpu()) scratch = push_scratch(ctx, args);
  on_device(
      ctx, "SwiGLU, backward", args.dact.dtype, [&]<class S>(S) { cpu::adapted_swiglu_backward<S>(args); },
      [&] { cuda::adapted_swiglu_backward(ctx, args, scratch); });
}

}  // namespace mixtune
