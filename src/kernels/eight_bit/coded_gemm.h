// Matrix products of operands in codes (quantise.h), both of one kind. Sums are fp32, of the products that share scales
// by themselves and then of these times both scales. On a GPU by cuBLASLt, which has kBlockCodes on Hopper and kMxCodes
// on Blackwell; on the CPU in order.
#pragma once

#include <array>

#include "kernels/eight_bit/quantise.h"

namespace mixtune {

// Whether a GPU has products of codes whose scales are taken by this rule. They were never run on a Blackwell.
bool has_coded_products(int compute_capability, ScaleRule scale);

// Which way a weight [E, N, K] lies in a product: as it is, for y = x W^T; or turned, for dx = dy W.
enum class WeightSide { kForward, kDataGradient };

// The groups of E weights [N, K] as rows of one matrix [E * N, K], which quantise takes.
class WeightRows {
 public:
  // [N, K] or [E, N, K].
  explicit WeightRows(const Tensor& weight);

  const Tensor& matrix() const { return matrix_; }
  RowGroups groups() const { return {begin_.data(), count_.data(), experts_}; }

 private:
  Tensor matrix_;
  int64_t experts_;
  std::array<int32_t, kMaxCodedGroups> begin_, count_;
};

// y_e = x_e W_e^T, or x_e W_e, for every group e of rows, or += with accumulate. The rows of y that are in no group are
// set to 0, but with accumulate.
struct CodedGemm {
  Codes x;       // Quantise::rows
  Codes weight;  // of WeightRows: Quantise::squares, or turned for kDataGradient
  WeightSide side = WeightSide::kForward;
  Tensor y;  // fp32 or bf16
  RowGroups groups;
  bool accumulate = false;
};
void coded_gemm(Ctx& ctx, const CodedGemm& args);

// dW_e [N, K] = dY_e^T X_e, or +=. An empty group gives zero.
struct CodedWgrad {
  Codes dy;   // Quantise::columns of [R, N]
  Codes x;    // Quantise::turned of [R, K]
  Tensor dw;  // [N, K] of a single group, or [E, N, K]
  RowGroups groups;
  bool accumulate = false;
};
void coded_wgrad(Ctx& ctx, const CodedWgrad& args);

}  // namespace mixtune
