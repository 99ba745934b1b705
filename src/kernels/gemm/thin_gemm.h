// The experts' products with a thin side on a GPU, those of low-rank adapters: all groups of rows in one launch, where
// cuBLASLt has one for each, too small for a whole GPU.
//
// Of bf16 operands, for up to kThinGroups groups. The thin side is a multiple of 8 up to kThinSide. Sums are fp32, in
// an order of their own, the same for any number of groups and rows.
#pragma once

#include "kernels/gemm/gemm.h"

namespace mixtune::cuda {

constexpr int64_t kThinSide = 64, kThinGroups = 64;
// Up to where they were faster than cuBLASLt on an H200, or slower by 15% at most with 2,048 rows of an expert
// (docs/performance.md): the summed dimension of a thin result, the columns of a thin sum's result, the wide side of a
// gradient.
constexpr int64_t kThinLongestSum = 16384, kThinWidestResult = 8192, kThinWidestGradient = 16384;

// Each returns false, and does nothing, where the product is none of these.
bool thin_grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args);
bool thin_grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args);

}  // namespace mixtune::cuda
