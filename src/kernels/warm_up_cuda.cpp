#include "kernels/attention_backend.h"
#include "kernels/cuda_ops.h"
#include "kernels/gemm_plans.h"

namespace mixtune::cuda {

void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits) {
  ctx.gpu->part<GemmPlans>().set_max_tokens(limits.tokens, limits.tokens * limits.expert_ranks);
  warm_up_attention(ctx, shape, dtype, limits);
}

void finish_warm_up(Ctx& ctx) {
  ctx.gpu->part<GemmPlans>().save();
  ctx.gpu->finish_warm_up();
}

}  // namespace mixtune::cuda
