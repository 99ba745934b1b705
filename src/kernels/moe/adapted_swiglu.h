// SwiGLU (kernels/swiglu.h) of experts beside whose weights lie low-rank adapters (kernels/adapter.h). What adapters
// add to its operands is added here, to values that are in registers anyway, and never written by itself; so are summed
// the gradients of B of gate-up and of A of down, whose other sides these results are.
//
// In the rows of each group; the rows that are in no group are 0 in all operands, and in all results.
#pragma once

#include "kernels/adapter.h"
#include "kernels/gemm/gemm.h"

namespace mixtune {

// gate_up lacks s u B^T. Modules: the weight's first half, its second, or both. Empty: it lacks nothing.
struct GateUpPairs {
  Tensor u, b;  // [R, m r], [E, rows, r]
  AdaptedModules modules;
  double scale = 1;
};

// dact lacks v A. Empty: nothing.
struct DownPair {
  Tensor v, a;  // [R, r], [E, r, F]
};

// Whether these ops take pairs of so many experts and such a rank, for results [R, F] of this dtype: where not, their
// parts are added before.
struct AdaptedSwigluForm {
  DType dtype;
  int64_t experts, rank, ffn;
};
bool adapted_swiglu_takes(const Ctx& ctx, const AdaptedSwigluForm& form);

// act [R, F], as swiglu_forward's.
struct AdaptedSwiglu {
  Tensor gate_up, row_weights;
  RowGroups groups;
  GateUpPairs gate_up_pairs;
  Tensor act;
};
void adapted_swiglu_forward(Ctx& ctx, const AdaptedSwiglu& args);

// As swiglu_backward. Beside that db = (or +=) s dgate_up^T u by modules, where there are pairs of gate-up; da = (or
// +=) v^T act, where there is one of down. An empty one is not wanted.
struct AdaptedSwigluBackward {
  Tensor gate_up, row_weights, dact;
  RowGroups groups;
  GateUpPairs gate_up_pairs;
  DownPair down_pair;
  Tensor dgate_up, drow_weights, act;
  Tensor db, da;
  bool accumulate_db = false, accumulate_da = false;
};
void adapted_swiglu_backward(Ctx& ctx, const AdaptedSwigluBackward& args);

}  // namespace mixtune
