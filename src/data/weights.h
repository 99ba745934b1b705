// Weights of trained tokens: how often a token's loss counts, in the sum and in what that is divided by.
#pragma once

namespace mixtune {

// Limits that keep sums of weights exact enough, and what they scale within fp32.
constexpr float kMinWeight = 1e-6F, kMaxWeight = 1e4F;

constexpr bool is_weight(double weight) {
  return weight >= double{kMinWeight} && weight <= double{kMaxWeight};
}

}  // namespace mixtune
