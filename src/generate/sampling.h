// How the next token is chosen from its logits.
#pragma once

#include <cstdint>
#include <span>

namespace mixtune {

struct Sampling {
  double temperature = 0;  // 0: greedy
  double top_p = 1;        // from the likeliest tokens that together have this probability
  uint64_t seed = 42;
};

// The id of the token at `position`. Greedy takes the lowest id of the largest logit; else the draw is a hash of
// (seed, position).
int32_t next_token(std::span<const float> logits, const Sampling& sampling, int64_t position);

}  // namespace mixtune
