#include "train/router_report.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/moe/router_health.h"
#include "train/expert_load.h"

namespace mixtune {

RouterReport::RouterReport(const MixtralConfig& config)
    : experts_(config.num_local_experts), shape_{config.num_hidden_layers, router_tally_size(experts_)} {
  const auto layers = static_cast<size_t>(config.num_hidden_layers), experts = static_cast<size_t>(experts_);
  record_.expert_tokens.resize(experts);
  record_.layer_expert_tokens.assign(layers, std::vector<int64_t>(experts));
  for (auto* numbers :
       {&record_.layer_imbalance, &record_.layer_share, &record_.layer_entropy, &record_.layer_logit_scale})
    numbers->resize(layers);
}

const RouterRecord& RouterReport::read(const double* tally, std::vector<double> bias_ranges) {
  record_.layer_bias_range = std::move(bias_ranges);
  std::ranges::fill(record_.expert_tokens, 0);
  for (size_t layer = 0; layer < record_.layer_expert_tokens.size(); ++layer)
    read_layer(layer, tally + static_cast<int64_t>(layer) * shape_[1]);
  return record_;
}

void RouterReport::read_layer(size_t layer, const double* tally) {
  std::vector<int64_t>& counts = record_.layer_expert_tokens[layer];
  for (size_t e = 0; e < counts.size(); ++e) {
    counts[e] = static_cast<int64_t>(tally[e]);
    record_.expert_tokens[e] += counts[e];
  }
  const double* numbers = tally + experts_;
  const double tokens = numbers[kTallyTokens], experts = static_cast<double>(experts_);
  record_.layer_imbalance[layer] = expert_imbalance<int64_t>(counts);
  record_.layer_share[layer] = static_cast<double>(std::ranges::max(counts)) / tokens;
  record_.layer_entropy[layer] = experts_ > 1 ? numbers[kTallyEntropy] / (tokens * std::log(experts)) : 1;
  record_.layer_logit_scale[layer] = std::sqrt(numbers[kTallySquares] / (tokens * experts));
}

}  // namespace mixtune
