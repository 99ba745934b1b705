// Which pairs of a token and an expert get a row, where an expert takes no more than so many. T tokens, k slots a
// token.
#pragma once

#include "config/config.h"
#include "tensor/ctx.h"

namespace mixtune {

// Writes sent [T, k] int32 = experts [T, k] int32 (-1: none; those of a token differ), with -1 for what is dropped: all
// but `most` pairs of each of the all_experts experts. kProbs keeps those of the largest weights [T, k], which are not
// negative, equal ones in the order of tokens; kPosition keeps those of the earliest tokens. Adds to dropped [2] fp64
// the number of dropped pairs, and of tokens that lost all theirs (empty: they are not counted).
struct DropPairs {
  Tensor experts, weights;
  int64_t all_experts, most;
  TokenDropPolicy policy = TokenDropPolicy::kProbs;
  Tensor sent, dropped;
};
void drop_pairs(Ctx& ctx, const DropPairs& args);

}  // namespace mixtune
