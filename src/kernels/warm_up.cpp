#include "kernels/warm_up.h"

#include "kernels/cuda_ops.h"
#include "kernels/gemm/cuda_ops.h"

namespace mixtune {

void begin_warm_up(Ctx& ctx, const AttentionShape& shape, DType dtype, const BatchLimits& limits) {
  if (ctx.gpu) cuda::begin_warm_up(ctx, shape, dtype, limits);
}

void finish_warm_up(Ctx& ctx) {
  if (ctx.gpu) cuda::finish_warm_up(ctx);
}

std::string kind_of_gemm_choices(Ctx& ctx) {
  return ctx.gpu ? cuda::kind_of_gemm_choices(*ctx.gpu) : "";
}

void choose_gemms_by_rule(Ctx& ctx) {
  if (ctx.gpu) cuda::choose_gemms_by_rule(*ctx.gpu);
}

std::string measured_gemm_choices(Ctx& ctx) {
  return ctx.gpu ? cuda::measured_gemm_choices(*ctx.gpu) : "";
}

void take_gemm_choices(Ctx& ctx, const std::string& choices) {
  if (ctx.gpu) cuda::take_gemm_choices(*ctx.gpu, choices);
}

std::string digest_of_gemm_choices(Ctx& ctx) {
  return ctx.gpu ? cuda::digest_of_gemm_choices(*ctx.gpu) : "";
}

}  // namespace mixtune
