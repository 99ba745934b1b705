// CPU twin of round_operand.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/eight_bit/round_operand.h"

namespace mixtune::cpu {

// Rows x columns of a matrix with `stride` columns.
template <class S>
struct OperandBlock {
  const S* x;
  S* y;
  int64_t rows, columns, stride;
};

template <class S>
void round_block(const EightBits& bits, const OperandBlock<S>& block) {
  S amax = 0;
  for (int64_t r = 0; r < block.rows; ++r)
    for (int64_t c = 0; c < block.columns; ++c) {
      const S magnitude = std::abs(block.x[r * block.stride + c]);
      if (std::isfinite(magnitude)) amax = std::max(amax, magnitude);
    }
  const S scale = scale_of(bits.format, bits.scale, amax);
  for (int64_t r = 0; r < block.rows; ++r)
    for (int64_t c = 0; c < block.columns; ++c) {
      const int64_t i = r * block.stride + c;
      block.y[i] = round_to(bits.format, block.x[i] / scale) * scale;
    }
}

template <class S>
void round_operand(const RoundOperand& args) {
  const bool many = args.x.shape.rank() == 3;
  const int64_t matrices = many ? args.x.shape[0] : 1, rows = args.x.shape[many ? 1 : 0],
                columns = args.x.shape[many ? 2 : 1], live = many ? rows : args.live;
  const int64_t tall = args.bits.blocks.rows > 0 ? args.bits.blocks.rows : std::max<int64_t>(live, 1),
                wide = args.bits.blocks.columns > 0 ? args.bits.blocks.columns : columns;
  const int64_t bands = (live + tall - 1) / tall;  // of one matrix
#pragma omp parallel for schedule(static)
  for (int64_t band = 0; band < matrices * bands; ++band) {
    const int64_t top = band % bands * tall, first = (band / bands * rows + top) * columns;
    for (int64_t left = 0; left < columns; left += wide)
      round_block<S>(args.bits, {.x = args.x.as<S>() + first + left,
                                 .y = args.y.as<S>() + first + left,
                                 .rows = std::min(tall, live - top),
                                 .columns = std::min(wide, columns - left),
                                 .stride = columns});
  }
  if (!many) std::fill(args.y.as<S>() + live * columns, args.y.as<S>() + rows * columns, S(0));
}

}  // namespace mixtune::cpu
