#include "model/operations.h"

#include <algorithm>

#include "model/params.h"

namespace mixtune {

namespace {

constexpr double kMultiplyAndAdd = 2;

// How many of a parameter's weights a token is multiplied with.
double weights_of_token(const ParamSpec& spec, const MixtralConfig& config) {
  const auto all = static_cast<double>(spec.shape.elements());
  switch (spec.group) {
    case WeightGroup::kAttention:
    case WeightGroup::kHead:
      return all;
    case WeightGroup::kExperts:
      return all * static_cast<double>(config.num_experts_per_tok) / static_cast<double>(config.num_local_experts);
    case WeightGroup::kEmbeddings:
      return config.tie_word_embeddings ? all : 0;  // as the head
    default:
      return 0;
  }
}

// One product with each weight, and one with each that is trained.
ModelOperations operations(const MixtralConfig& config, const ModelLayout& layout, double every, double trained) {
  ModelOperations sum{.window = static_cast<double>(config.sliding_window)};
  for (const ParamSpec& spec : layout.specs)
    sum.token += kMultiplyAndAdd * weights_of_token(spec, config) * (every + (spec.trainable ? trained : 0));
  sum.pair =
      2 * kMultiplyAndAdd * static_cast<double>(config.query_size() * config.num_hidden_layers) * (every + trained);
  return sum;
}

}  // namespace

double ModelOperations::of(double tokens, double squared_lengths) const {
  const double pairs = squared_lengths / 2;
  return token * tokens + pair * (window > 0 ? std::min(pairs, window * tokens) : pairs);
}

ModelOperations forward_operations(const MixtralConfig& config) {
  return operations(config, make_layout(config), 1, 0);
}

ModelOperations training_operations(const MixtralConfig& config, const Freeze& freeze, const Lora& lora) {
  return operations(config, make_layout(config, {0, config.num_local_experts}, freeze, lora), 2, 1);
}

}  // namespace mixtune
