#include "generate/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/random.h"

namespace mixtune {

int32_t next_token(std::span<const float> logits, const Sampling& sampling, int64_t position) {
  const float largest = *std::ranges::max_element(logits);
  if (sampling.temperature == 0) return static_cast<int32_t>(std::ranges::find(logits, largest) - logits.begin());

  std::vector<double> weights(logits.size());
  std::ranges::transform(logits, weights.begin(), [&](float logit) {
    return std::exp((static_cast<double>(logit) - largest) / sampling.temperature);
  });
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(ids, std::greater(), [&](int32_t id) { return weights[id]; });

  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  while (count < ids.size() && (count == 0 || kept < sampling.top_p * total)) kept += weights[ids[count++]];

  double draw = random_uniform(random_key(sampling.seed, "generate"), static_cast<uint64_t>(position)) * kept;
  for (size_t i = 0; i + 1 < count; ++i) {
    draw -= weights[ids[i]];
    if (draw < 0) return ids[i];
  }
  return ids[count - 1];
}

}  // namespace mixtune
