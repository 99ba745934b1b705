// CPU twin of round_operand.h.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/eight_bit/round_operand.h"

namespace mixtune::cpu {

// Elements that share a scale: rows x columns of a matrix with `stride` columns.
struct ScaleBlock {
  int64_t first, rows, columns, stride;

  // Calls use(index) for each.
  template <class Use>
  void for_each(const Use& use) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) use(first + r * stride + c);
  }

  // The largest finite magnitude.
  template <class S>
  S amax(const S* x) const {
    S most = 0;
    for_each([&](int64_t i) {
      const S magnitude = std::abs(x[i]);
      if (std::isfinite(magnitude)) most = std::max(most, magnitude);
    });
    return most;
  }
};

// The blocks of live rows, in bands of neighbours.
struct BlockBands {
  int64_t matrices, rows, columns, live;  // of each matrix
  int64_t tall, wide;                     // of a block

  BlockBands(const Shape& shape, const ScaleBlocks& blocks, int64_t live_rows)
      : matrices(shape.rank() == 3 ? shape[0] : 1),
        rows(shape[-2]),
        columns(shape[-1]),
        live(shape.rank() == 3 ? rows : live_rows),
        tall(blocks.rows > 0 ? blocks.rows : std::max<int64_t>(live, 1)),
        wide(blocks.columns > 0 ? blocks.columns : columns) {}

  int64_t count() const { return matrices * of_matrix(); }

  // Calls use(block) for each of a band.
  template <class Use>
  void for_each_block(int64_t band, const Use& use) const {
    const int64_t top = band % of_matrix() * tall, begin = (band / of_matrix() * rows + top) * columns;
    for (int64_t left = 0; left < columns; left += wide)
      use(ScaleBlock{.first = begin + left,
                     .rows = std::min(tall, live - top),
                     .columns = std::min(wide, columns - left),
                     .stride = columns});
  }

 private:
  int64_t of_matrix() const { return (live + tall - 1) / tall; }
};

template <class S>
void round_operand(const RoundOperand& args) {
  const BlockBands bands(args.x.shape, args.bits.blocks, args.live);
  const EightBits& bits = args.bits;
  const S* x = args.x.as<S>();
  S* y = args.y.as<S>();
#pragma omp parallel for schedule(static)
  for (int64_t band = 0; band < bands.count(); ++band)
    bands.for_each_block(band, [&](const ScaleBlock& block) {
      const S scale = scale_of(bits.format, bits.scale, block.amax(x));
      block.for_each([&](int64_t i) { y[i] = round_to(bits.format, x[i] / scale) * scale; });
    });
  if (bands.matrices == 1) std::fill(y + bands.live * bands.columns, y + bands.rows * bands.columns, S(0));
}

}  // namespace mixtune::cpu
