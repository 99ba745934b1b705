// Capacity: how many rows an expert takes of a rank's micro-batch in training (docs/router.md).
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>

#include "config/config.h"
#include "kernels/moe/permute.h"

namespace mixtune {

struct Capacity {
  std::optional<double> factor;  // of what an expert gets if all get the same; nothing: whatever it gets
  TokenDropPolicy policy = TokenDropPolicy::kProbs;
  int64_t padded_tokens = 0;  // > 0: every expert has the rows that the factor gives of so many tokens

  // Of a micro-batch with `live` tokens, each of which goes to k experts. Not set where no expert can exceed it.
  RowLimit limit(int64_t live, int64_t k, int64_t experts) const {
    if (!factor) return {};
    const bool padded = padded_tokens > 0;
    const int64_t tokens = padded ? padded_tokens : live;
    const double rows = std::ceil(static_cast<double>(tokens * k) / static_cast<double>(experts) * *factor);
    const bool limits = rows < static_cast<double>(tokens);
    if (!limits && !padded) return {};
    return {.most = limits ? static_cast<int64_t>(rows) : tokens, .padded = padded};
  }
};

}  // namespace mixtune
