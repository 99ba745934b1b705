// CPU twin of coded_gemm.h: codes times scales, in fp64, and their sums.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/eight_bit/coded_gemm.h"
#include "kernels/eight_bit/quantise_cpu.h"

namespace mixtune::cpu {

// An operand [rows, k] of one group's product as numbers: its codes times their scales.
struct Decoded {
  int64_t rows, k;
  std::vector<double> values;

  // `matrix_rows`: of the matrix that was quantised.
  Decoded(const Codes& codes, CodesForm form, const CodedGroup& group, int64_t matrix_rows)
      : rows(is_transposed(form) ? group.columns : group.rows), k(is_transposed(form) ? group.rows : group.columns) {
    values.reserve(rows * k);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t l = 0; l < k; ++l) {
        const int64_t row = group.begin + (is_transposed(form) ? l : i), column = is_transposed(form) ? i : l;
        const E4M3 code =
            codes.codes.as<E4M3>()[is_transposed(form) ? column * matrix_rows + row : row * group.columns + column];
        const int64_t scale = scale_index(codes.scales.dtype, form, group, row, column);
        values.push_back(static_cast<double>(to_float(code)) * load_scale(codes.scales, scale));
      }
  }
};

// c = a b^T, or +=.
template <class S>
void multiply_decoded(const Decoded& a, const Decoded& b, S* c, bool accumulate) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < a.rows; ++i)
    for (int64_t j = 0; j < b.rows; ++j) {
      double sum = accumulate ? static_cast<double>(c[i * b.rows + j]) : 0;
      for (int64_t l = 0; l < a.k; ++l) sum += a.values[i * a.k + l] * b.values[j * a.k + l];
      c[i * b.rows + j] = static_cast<S>(sum);
    }
}

template <class S>
void coded_gemm(const CodedGemm& args) {
  const bool forward = args.side == WeightSide::kForward;
  const int64_t k = args.x.codes.shape[1], n = args.y.shape[1], experts = args.groups.groups;
  if (!args.accumulate) std::fill_n(args.y.as<S>(), args.y.elements(), S(0));
  for (int64_t e = 0; e < experts; ++e) {
    const CodedGroup rows = coded_group(args.groups, e, k);
    const CodedGroup weight = forward ? CodedGroup{.index = e, .begin = e * n, .rows = n, .columns = k}
                                      : CodedGroup{.index = e, .begin = e * k, .rows = k, .columns = n};
    const Decoded a(args.x, CodesForm::kRows, rows, args.y.rows()),
        b(args.weight, forward ? CodesForm::kSquares : CodesForm::kTurned, weight, experts * weight.rows);
    multiply_decoded(a, b, args.y.as<S>() + rows.begin * n, args.accumulate);
  }
}

template <class S>
void coded_wgrad(const CodedWgrad& args) {
  const int64_t n = args.dw.shape[-2], k = args.dw.shape[-1], all = args.x.codes.shape[1];
  for (int64_t e = 0; e < args.groups.groups; ++e) {
    const Decoded a(args.dy, CodesForm::kColumns, coded_group(args.groups, e, n), all),
        b(args.x, CodesForm::kTurned, coded_group(args.groups, e, k), all);
    multiply_decoded(a, b, args.dw.as<S>() + e * n * k, args.accumulate);
  }
}

}  // namespace mixtune::cpu
