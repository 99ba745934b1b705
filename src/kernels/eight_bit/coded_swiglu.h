// SwiGLU of experts whose results are read as codes: what swiglu.h computes, in the dtype of gate_up, and quantise
// makes of it, with the same bits (but for drow_weights, added in another order). On a GPU the results do not go
// through memory, but those of MX do. R rows, F columns, both multiples of 128.
#pragma once

#include "kernels/eight_bit/quantise.h"

namespace mixtune {

// act = silu(gate) * up * row_weights.
struct CodedSwigluForward {
  Tensor gate_up, row_weights;  // [R, 2F], [R]
  RowGroups groups;
  ScaleRule scale = ScaleRule::kPowerOfTwo;
  Codes act_rows;  // kRows of [R, F]
};
void coded_swiglu_forward(Ctx& ctx, const CodedSwigluForward& args);

struct CodedSwigluBackward {
  Tensor gate_up, row_weights, dact;  // [R, 2F], [R], [R, F]
  RowGroups groups;
  ScaleRule scale = ScaleRule::kPowerOfTwo;
  Codes dgate_up_rows, dgate_up_columns;  // kRows and kColumns of [R, 2F]
  Codes act_turned;                       // kTurned of [R, F]
  Tensor drow_weights;                    // [R]; 0 of rows in no group
};
void coded_swiglu_backward(Ctx& ctx, const CodedSwigluBackward& args);

}  // namespace mixtune
