// CPU twin of quantise.h: element by element.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/eight_bit/quantise.h"

namespace mixtune::cpu {

// The code of a value that round_to gave: sign, 4 bits of exponent, 3 of mantissa.
template <class S>
E4M3 code_of(S value) {
  if (std::isnan(value)) return {0x7F};
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const S magnitude = std::abs(value);
  const int exponent = magnitude < std::ldexp(S(1), kE4M3.min_exponent) ? kE4M3.min_exponent : std::ilogb(magnitude);
  // A normal number has its leading one at 8, which adds 1 to the exponent's field.
  const auto steps = static_cast<int>(std::ldexp(magnitude, kE4M3.mantissa_bits - exponent));
  return {static_cast<uint8_t>(sign | ((exponent - kE4M3.min_exponent) * 8 + steps))};
}

// A block of rows x columns of x, of which `live` rows are not taken as 0.
template <class S>
struct BlockToCode {
  const S* x;
  int64_t stride, live, rows, columns;
  ScaleRule rule;

  S value(int64_t r, int64_t c) const { return r < live ? x[r * stride + c] : S(0); }
  S scale() const {
    S amax = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        if (std::isfinite(value(r, c))) amax = std::max(amax, std::abs(value(r, c)));
    return scale_of(kE4M3, rule, amax);
  }
  // Calls write(r, c, code).
  template <class Write>
  void for_each_code(const Write& write) const {
    const S by = scale();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) write(r, c, code_of(round_to(kE4M3, value(r, c) / by)));
  }
};

// A scale in its operand's type; those of MX are powers of two.
inline void store_scale(const Tensor& scales, int64_t index, double scale) {
  if (scales.dtype == DType::kF8E8M0)
    scales.as<E8M0>()[index] = {static_cast<uint8_t>(std::ilogb(scale) - kE8M0.smallest)};
  else
    scales.as<float>()[index] = static_cast<float>(scale);
}

inline double load_scale(const Tensor& scales, int64_t index) {
  return scales.dtype == DType::kF8E8M0 ? to_float(scales.as<E8M0>()[index]) : scales.as<float>()[index];
}

// Writes one group's.
template <class S>
void quantise_group(const Quantise& args, const CodedGroup& group, CodesForm form, const Codes& out) {
  const int64_t columns = group.columns, matrix_rows = args.x.rows(), end = group.begin + group.rows,
                live_end = group.begin + args.groups.count[group.index];
  const ScaleBlocks blocks = blocks_of(codes_kind(args.scale), form);
  auto* codes = out.codes.as<E4M3>();
#pragma omp parallel for schedule(static)
  for (int64_t top = group.begin; top < end; top += blocks.rows)
    for (int64_t left = 0; left < columns; left += blocks.columns) {
      const BlockToCode<S> block = {.x = args.x.as<S>() + top * columns + left,
                                    .stride = columns,
                                    .live = std::clamp<int64_t>(live_end - top, 0, blocks.rows),
                                    .rows = blocks.rows,
                                    .columns = blocks.columns,
                                    .rule = args.scale};
      store_scale(out.scales, scale_index(out.scales.dtype, form, group, top, left), block.scale());
      block.for_each_code([&](int64_t r, int64_t c, E4M3 code) {
        codes[is_transposed(form) ? (left + c) * matrix_rows + top + r : (top + r) * columns + left + c] = code;
      });
    }
}

template <class S>
void quantise(const Quantise& args) {
  for (int64_t e = 0; e < args.groups.groups; ++e) {
    const CodedGroup group = coded_group(args.groups, e, args.x.shape[1]);
    for (const auto& [form, out] :
         {std::pair(CodesForm::kRows, args.rows), std::pair(CodesForm::kColumns, args.columns),
          std::pair(CodesForm::kSquares, args.squares), std::pair(CodesForm::kTurned, args.turned)})
      if (out) quantise_group<S>(args, group, form, out);
  }
}

}  // namespace mixtune::cpu
