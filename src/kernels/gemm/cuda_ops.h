// The CUDA half of matrix products; kernels/cuda_ops.h says what holds for all.
#pragma once

#include "kernels/gemm/gemm.h"

namespace mixtune::cuda {

void choose_gemms_by_rule(Gpu& gpu);
std::string digest_of_gemm_choices(Gpu& gpu);
void gemm(Ctx& ctx, const GemmArgs& args);
void grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args);
void grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args);
std::string kind_of_gemm_choices(Gpu& gpu);
std::string measured_gemm_choices(Gpu& gpu);
void take_gemm_choices(Gpu& gpu, const std::string& choices);

}  // namespace mixtune::cuda
