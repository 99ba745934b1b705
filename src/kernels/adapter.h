// The B of low-rank adapters (Hu et al. 2021: W + s B A) in the form that products read, and its gradient back.
//
// The modules of a weight [N, K] are ranges of its rows. Each adapted one has a pair over the same input, A [r, K] and
// B [rows, r]: the A lie one under the other, [m r, K], and so do the B, [rows of all m, r]. Expanded, B is [N, m r]:
// the rows of module i have s times its B in columns [i r, (i + 1) r), and all else is 0. So y += (x A^T) B^T adds the
// parts of all modules at once. Weights of experts, and their pairs, have one dimension more in front.
#pragma once

#include <array>

#include "tensor/ctx.h"

namespace mixtune {

struct AdaptedRows {
  int64_t first, count;  // of the weight
};

// In the order of their rows.
struct AdaptedModules {
  static constexpr int kMost = 3;
  std::array<AdaptedRows, kMost> rows{};
  int size = 0;

  void add(const AdaptedRows& module) { rows.at(size++) = module; }
  int64_t row_count() const {
    int64_t count = 0;
    for (int i = 0; i < size; ++i) count += rows[i].count;
    return count;
  }
};

// All tensors have the same experts, or none. b and expanded are of one dtype.
struct ExpandAdapter {
  Tensor b;  // [rows, r]
  const AdaptedModules& modules;
  double scale;
  Tensor expanded;  // [N, m r]
};
void expand_adapter(Ctx& ctx, const ExpandAdapter& args);

// db = (or +=, with accumulate) s times the parts of dexpanded that expand_adapter takes from b. dexpanded has db's
// dtype, or is fp32.
struct FoldAdapter {
  Tensor dexpanded;  // [N, m r]
  const AdaptedModules& modules;
  double scale;
  Tensor db;  // [rows, r]
  bool accumulate = false;
};
void fold_adapter(Ctx& ctx, const FoldAdapter& args);

}  // namespace mixtune
