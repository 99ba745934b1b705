// CPU twin of fp8_weight.h.
#pragma once

#include <algorithm>

#include "kernels/eight_bit/fp8_weight.h"
#include "kernels/eight_bit/quantise_cpu.h"

namespace mixtune::cpu {

template <class S>
void fp8_quantise(const Fp8Quantise& args) {
  const int64_t rows = args.to.codes.shape[0], columns = args.to.codes.shape[1], across = args.to.scales.shape[1];
  auto* codes = args.to.codes.as<E4M3>();
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < args.to.scales.elements(); ++b) {
    const int64_t top = b / across * kScaleBlock, left = b % across * kScaleBlock, tall = rows - top;
    const BlockToCode<S> block = {.x = args.x.as<S>() + top * columns + left,
                                  .stride = columns,
                                  .live = tall,
                                  .rows = std::min(kScaleBlock, tall),
                                  .columns = std::min(kScaleBlock, columns - left),
                                  .rule = ScaleRule::kPowerOfTwo};
    store_scale(args.to.scales, b, block.scale());
    block.for_each_code([&](int64_t r, int64_t c, E4M3 code) { codes[(top + r) * columns + left + c] = code; });
  }
}

template <class S>
void fp8_dequantise(const Fp8Dequantise& args) {
  const int64_t rows = args.from.codes.shape[0], columns = args.from.codes.shape[1], across = args.from.scales.shape[1];
  const auto* codes = args.from.codes.as<E4M3>();
  const auto* scales = args.from.scales.as<float>();
  S* to = args.to.as<S>();
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      to[r * columns + c] = S(to_float(codes[r * columns + c])) * S(scales[r / kScaleBlock * across + c / kScaleBlock]);
}

}  // namespace mixtune::cpu
