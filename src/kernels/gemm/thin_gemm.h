// Products with a thin side on a GPU: those of low-rank adapters. They are bound by memory, and all groups of rows are
// one launch, where cuBLASLt has one for each.
//
// Of bf16 operands, where a side is a multiple of 8 up to kThinSide and the other a multiple of 64; of up to
// kThinGroups groups. Sums are fp32, over ascending k in 16s, whatever else is computed: the same bits on any layout.
#pragma once

#include "kernels/gemm/gemm.h"

namespace mixtune::cuda {

constexpr int64_t kThinSide = 64, kThinGroups = 64;

// Each returns false, and does nothing, where the product is none of these.
bool thin_gemm(Ctx& ctx, const GemmArgs& args);
bool thin_grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args);
bool thin_grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args);

}  // namespace mixtune::cuda
