// Matrix products. Row-major, contiguous. Results do not depend on the number of threads.
#pragma once

#include "tensor/ctx.h"

namespace mixtune {

// On a GPU a and b are of one dtype, fp32 (exact: no TF32) or bf16; the result is of the same, or fp32.
//
// C [M, N] = op(A) op(B), or += with accumulate. op(A) is [M, K]: A itself, or with trans_a the transpose of A [K, M];
// likewise op(B) [K, N]. C overlaps neither operand. K = 0 is allowed.
struct GemmArgs {
  Tensor a, b, c;
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;
};
void gemm(Ctx& ctx, const GemmArgs& args);

// Rows of group e in a tensor of R rows: [begin[e], begin[e] + count[e]). Host memory; E groups, each may be empty.
// Groups are in the order of their rows, each begins at a multiple of kRowAlignment, R is a multiple of it, and the
// rows of operands that are in no group are 0 (a GPU multiplies whole multiples of kRowAlignment rows).
struct RowGroups {
  const int32_t* begin;
  const int32_t* count;
  int64_t groups;
};

// Y_e = X_e W_e^T (trans_w) or X_e W_e for every group e, or += with accumulate. X [R, K], Y [R, N], W [E, N, K] or
// [E, K, N]. The rows of Y that are in no group are set to 0; with accumulate they are 0 already.
struct GroupedGemmArgs {
  Tensor x, w, y;
  RowGroups groups;
  bool trans_w = false;
  bool accumulate = false;
};
void grouped_gemm(Ctx& ctx, const GroupedGemmArgs& args);

// dW_e = dY_e^T X_e, or += with accumulate. dY [R, N], X [R, K], dW [E, N, K]. An empty group gives zero.
struct GroupedWgradArgs {
  Tensor dy, x, dw;
  RowGroups groups;
  bool accumulate = false;
};
void grouped_wgrad(Ctx& ctx, const GroupedWgradArgs& args);

}  // namespace mixtune
