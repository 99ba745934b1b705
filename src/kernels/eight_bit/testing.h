// What the tests of 8-bit operands share.
#pragma once

#include <algorithm>

#include "kernels/eight_bit/round_operand.h"

namespace mixtune {

// Calls use(each_element) for each block of a matrix of so many rows and columns; each_element(f) calls f(row, column)
// for all elements of the block.
struct MatrixSize {
  int64_t rows, columns;
};
template <class Use>
void for_each_block(const ScaleBlocks& blocks, const MatrixSize& matrix, const Use& use) {
  const int64_t tall = blocks.rows > 0 ? blocks.rows : matrix.rows,
                wide = blocks.columns > 0 ? blocks.columns : matrix.columns;
  for (int64_t top = 0; top < matrix.rows; top += tall)
    for (int64_t left = 0; left < matrix.columns; left += wide)
      use([&](const auto& f) {
        for (int64_t r = top; r < std::min(top + tall, matrix.rows); ++r)
          for (int64_t c = left; c < std::min(left + wide, matrix.columns); ++c) f(r, c);
      });
}

}  // namespace mixtune
