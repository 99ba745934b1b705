// CPU twin of quantise.h: element by element.
#pragma once

#include <cmath>

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

// One of Quantise's four: where it goes, the codes of the matrix or of its transpose, and blocks of tall x wide.
struct CodesOf {
  Codes out;
  bool turned;
  int64_t tall, wide;
};

// Writes one group's. scale_at(row, column) says where a block's scale stands.
template <class S, class ScaleAt>
void quantise_group(const Quantise& args, const CodedGroup& group, const CodesOf& of, const ScaleAt& scale_at) {
  const int64_t columns = group.columns, matrix_rows = args.x.rows(), end = group.begin + group.rows,
                live_end = group.begin + args.groups.count[group.index];
  auto* codes = of.out.codes.as<E4M3>();
#pragma omp parallel for schedule(static)
  for (int64_t top = group.begin; top < end; top += of.tall)
    for (int64_t left = 0; left < columns; left += of.wide) {
      const BlockToCode<S> block = {.x = args.x.as<S>() + top * columns + left,
                                    .stride = columns,
                                    .live = std::clamp<int64_t>(live_end - top, 0, of.tall),
                                    .rows = of.tall,
                                    .columns = of.wide,
                                    .rule = args.scale};
      of.out.scales.as<float>()[scale_at(top, left)] = static_cast<float>(block.scale());
      block.for_each_code([&](int64_t r, int64_t c, E4M3 code) {
        codes[of.turned ? (left + c) * matrix_rows + top + r : (top + r) * columns + left + c] = code;
      });
    }
}

template <class S>
void quantise(const Quantise& args) {
  for (int64_t e = 0; e < args.groups.groups; ++e) {
    const CodedGroup g = coded_group(args.groups, e, args.x.shape[1]);
    constexpr int64_t kBlock = kScaleBlock;
    if (args.rows)
      quantise_group<S>(args, g, {args.rows, false, 1, kBlock},
                        [&](int64_t row, int64_t column) { return g.rows_begin() + g.of_row(row, column / kBlock); });
    if (args.columns)
      quantise_group<S>(args, g, {args.columns, true, kBlock, 1},
                        [&](int64_t row, int64_t column) { return g.columns_begin() + g.of_column(row, column); });
    if (args.squares)
      quantise_group<S>(args, g, {args.squares, false, kBlock, kBlock}, [&](int64_t row, int64_t column) {
        return g.squares_begin() + g.of_square(row, column / kBlock);
      });
    if (args.turned)
      quantise_group<S>(args, g, {args.turned, true, kBlock, kBlock}, [&](int64_t row, int64_t column) {
        return g.turned_begin() + g.of_turned(row, column / kBlock);
      });
  }
}

}  // namespace mixtune::cpu
