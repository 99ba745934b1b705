// CPU twin of operand_health.h.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/eight_bit/operand_health.h"
#include "kernels/eight_bit/round_operand_cpu.h"

namespace mixtune::cpu {

struct HealthSums {
  int64_t values = 0, flushed = 0, saturated = 0;
  float amax = 0;

  template <class S>
  void add(S x, S scale, const Fp8Losses<S>& losses) {
    if (x == 0) return;
    const S magnitude = std::abs(x);
    ++values;
    if (!std::isfinite(x) || losses.saturates(magnitude, scale))
      ++saturated;
    else if (losses.flushes(magnitude, scale))
      ++flushed;
  }

  void add_to(int64_t* tally) const {
    tally[kHealthValues] += values;
    tally[kHealthFlushed] += flushed;
    tally[kHealthSaturated] += saturated;
    tally[kHealthAmax] = std::max<int64_t>(tally[kHealthAmax], std::bit_cast<uint32_t>(amax));
  }
};

template <class S>
void operand_health(const OperandHealth& args) {
  const BlockBands bands(args.x.shape, args.bits.blocks, args.live);
  const Fp8Losses<S> losses(args.bits.format);
  const S* x = args.x.as<S>();
#pragma omp parallel for schedule(static)
  for (int64_t band = 0; band < bands.count(); ++band) {
    HealthSums sums;
    bands.for_each_block(band, [&](const ScaleBlock& block) {
      const S amax = block.amax(x), scale = scale_of(args.bits.format, args.bits.scale, amax);
      sums.amax = std::max(sums.amax, static_cast<float>(amax));
      block.for_each([&](int64_t i) { sums.add(x[i], scale, losses); });
    });
#pragma omp critical(operand_health)
    sums.add_to(args.tally.as<int64_t>());
  }
}

}  // namespace mixtune::cpu
