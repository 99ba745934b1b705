// CPU twin of coded_gemm.h: codes times scales, in fp64, and their sums.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/eight_bit/coded_gemm.h"

namespace mixtune::cpu {

// An operand [rows, k] of one group's product as numbers. code_at(i, l) and scale_at(i, l) give what stands for an
// element.
struct Decoded {
  int64_t rows, k;
  std::vector<double> values;

  template <class CodeAt, class ScaleAt>
  Decoded(int64_t m, int64_t length, const CodeAt& code_at, const ScaleAt& scale_at) : rows(m), k(length) {
    values.reserve(rows * k);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t l = 0; l < k; ++l)
        values.push_back(static_cast<double>(to_float(code_at(i, l))) * static_cast<double>(scale_at(i, l)));
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
  const E4M3 *x = args.x.codes.as<E4M3>(), *w = args.weight.codes.as<E4M3>();
  const float *x_scales = args.x.scales.as<float>(), *w_scales = args.weight.scales.as<float>();
  if (!args.accumulate) std::fill_n(args.y.as<S>(), args.y.elements(), S(0));
  for (int64_t e = 0; e < experts; ++e) {
    const CodedGroup rows = coded_group(args.groups, e, k);
    const CodedGroup weight = forward ? CodedGroup{.index = e, .begin = e * n, .rows = n, .columns = k}
                                      : CodedGroup{.index = e, .begin = e * k, .rows = k, .columns = n};
    const Decoded a(
        rows.rows, k, [&](int64_t i, int64_t l) { return x[(rows.begin + i) * k + l]; },
        [&](int64_t i, int64_t l) {
          return x_scales[rows.rows_begin() + rows.of_row(rows.begin + i, l / kScaleBlock)];
        });
    const Decoded b(
        n, k,
        [&](int64_t j, int64_t l) {
          return forward ? w[(weight.begin + j) * k + l] : w[j * experts * k + weight.begin + l];
        },
        [&](int64_t j, int64_t l) {
          return forward ? w_scales[weight.squares_begin() + weight.of_square(weight.begin + j, l / kScaleBlock)]
                         : w_scales[weight.turned_begin() + weight.of_turned(weight.begin + l, j / kScaleBlock)];
        });
    multiply_decoded(a, b, args.y.as<S>() + rows.begin * n, args.accumulate);
  }
}

template <class S>
void coded_wgrad(const CodedWgrad& args) {
  const int64_t n = args.dw.shape[-2], k = args.dw.shape[-1], all = args.x.codes.shape[1];
  const E4M3 *dy = args.dy.codes.as<E4M3>(), *x = args.x.codes.as<E4M3>();
  const float *dy_scales = args.dy.scales.as<float>(), *x_scales = args.x.scales.as<float>();
  for (int64_t e = 0; e < args.groups.groups; ++e) {
    const CodedGroup left = coded_group(args.groups, e, n), right = coded_group(args.groups, e, k);
    const Decoded a(
        n, left.rows, [&](int64_t i, int64_t l) { return dy[i * all + left.begin + l]; },
        [&](int64_t i, int64_t l) { return dy_scales[left.columns_begin() + left.of_column(left.begin + l, i)]; });
    const Decoded b(
        k, left.rows, [&](int64_t j, int64_t l) { return x[j * all + left.begin + l]; },
        [&](int64_t j, int64_t l) {
          return x_scales[right.turned_begin() + right.of_turned(right.begin + l, j / kScaleBlock)];
        });
    multiply_decoded(a, b, args.dw.as<S>() + e * n * k, args.accumulate);
  }
}

}  // namespace mixtune::cpu
