// CPU twin of sinkhorn.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/moe/sinkhorn.h"

namespace mixtune::cpu {

// sums [E] += r_t exp(l_te) of a token's logits. exps [E] is scratch.
template <class S>
void add_balanced_row(const S* logits, const S* c, int64_t experts, int64_t live, double* exps, double* sums) {
  const S highest = *std::max_element(logits, logits + experts);
  S sum = static_cast<S>(kSinkhornEpsilon) * std::exp(-highest);
  for (int64_t e = 0; e < experts; ++e) {
    const S power = std::exp(logits[e] - highest);
    sum += c[e] * power;
    exps[e] = power;
  }
  // As far as c may fall, r stays finite.
  const S r = 1 / (static_cast<S>(live) * std::max(sum, std::numeric_limits<S>::min()));
  for (int64_t e = 0; e < experts; ++e) sums[e] += r * static_cast<S>(exps[e]);
}

// Sums are of fixed parts of the tokens, so that they are the same with any number of threads.
template <class S>
void sinkhorn(Ctx& ctx, const Sinkhorn& args) {
  constexpr int64_t kPart = 256;
  const int64_t experts = args.logits.shape[1], live = args.live, parts = (live + kPart - 1) / kPart;
  const Stack::Frame frame(ctx.stack);
  const Tensor partial = ctx.stack.push("sinkhorn sums, partial", {parts, 2, experts}, DType::kF64);
  S* c = args.offsets.as<S>();
  std::fill_n(c, experts, S(1));
  double change = live > 0 ? 1 : 0;  // a NaN ends the rounds too
  for (int round = 0; change > kSinkhornTolerance && round < kSinkhornMostRounds; ++round) {
#pragma omp parallel for
    for (int64_t part = 0; part < parts; ++part) {
      double* sums = partial.as<double>() + 2 * part * experts;
      std::fill_n(sums, experts, 0.0);
      for (int64_t t = part * kPart; t < std::min(live, (part + 1) * kPart); ++t)
        add_balanced_row(args.logits.as<S>() + t * experts, c, experts, live, sums + experts, sums);
    }
    change = 0;
    for (int64_t e = 0; e < experts; ++e) {
      double sum = kSinkhornEpsilon;
      for (int64_t part = 0; part < parts; ++part) sum += partial.as<double>()[2 * part * experts + e];
      const S before = std::exchange(c[e], static_cast<S>(1 / (static_cast<double>(experts) * sum)));
      change += std::abs(static_cast<double>(c[e]) - static_cast<double>(before)) / static_cast<double>(experts);
    }
  }
  for (int64_t e = 0; e < experts; ++e) c[e] = std::log(c[e]);
}

}  // namespace mixtune::cpu
