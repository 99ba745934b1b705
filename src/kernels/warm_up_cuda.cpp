#include "kernels/attention/attention_backend.h"
#include "kernels/cuda_ops.h"
#include "kernels/gemm/cuda_ops.h"
#include "kernels/gemm/gemm_plans.h"

namespace mixtune::cuda {

void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits) {
  ctx.gpu->part<GemmPlans>().set_max_tokens(limits.tokens, limits.tokens * limits.expert_ranks);
  warm_up_attention(ctx, shape, dtype, limits);
}

std::string kind_of_gemm_choices(Gpu& gpu) {
  return gpu.part<GemmPlans>().machine();
}

void choose_gemms_by_rule(Gpu& gpu) {
  gpu.part<GemmPlans>().choose_by_rule();
}

std::string measured_gemm_choices(Gpu& gpu) {
  return gpu.part<GemmPlans>().measured_choices();
}

void take_gemm_choices(Gpu& gpu, const std::string& choices) {
  gpu.part<GemmPlans>().take_choices(choices);
}

std::string digest_of_gemm_choices(Gpu& gpu) {
  return gpu.part<GemmPlans>().digest();
}

void finish_warm_up(Ctx& ctx) {
  ctx.gpu->part<GemmPlans>().save();
  ctx.gpu->finish_warm_up();
}

}  // namespace mixtune::cuda
