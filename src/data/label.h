#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace mixtune {

constexpr int32_t kIgnoreTarget = -100;  // a label that is not trained: a batch's targets leave such rows out

// The labels of a document's tokens, at least one, become their targets: of each the label of the token after it, of
// the last none. The labels' weights, where there are some, go with them.
inline void shift_labels(std::span<int32_t> labels, std::span<float> weights = {}) {
  std::shift_left(labels.begin(), labels.end(), 1);
  labels.back() = kIgnoreTarget;
  if (!weights.empty()) std::shift_left(weights.begin(), weights.end(), 1);
}

}  // namespace mixtune
