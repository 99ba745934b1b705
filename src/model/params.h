// The parameters of a Mixtral model, and of which Hugging Face tensors each is put together.
#pragma once

#include <vector>

#include "model/mixtral_config.h"
#include "parallel/rank_grid.h"
#include "state/state.h"

namespace mixtune {

struct LayerParams {
  int input_norm;     // [H]
  int qkv;            // [q + 2 kv, H]: q, k, v rows in turn
  int attention_out;  // [H, q]
  int post_norm;      // [H]
  int router;         // [E, H]
  int gate_up;        // [experts here, 2F, H]: w1's rows, then w3's
  int down;           // [experts here, H, F]
};

// Each parameter's index into State.
struct ModelParams {
  int embedding;  // [V, H]
  std::vector<LayerParams> layers;
  int final_norm;  // [H]
  int lm_head;     // [V, H]; the embedding itself where they are tied
};

struct ModelLayout {
  std::vector<ParamSpec> specs;
  ModelParams params;
};
// The layout of a rank that holds these experts. A layer's parameters are two buckets: dense ones, and the experts'.
ModelLayout make_layout(const MixtralConfig& config, RankGrid::Experts experts);
// The layout of the whole model.
ModelLayout make_layout(const MixtralConfig& config);

// Fills every weight at random, as transformers does: normal(0, initializer_range), norms 1. Each value is a hash of
// (seed, Hugging Face tensor name, element index). State's dtype is fp32 or fp64.
void initialise_weights(const MixtralConfig& config, uint64_t seed, State& state);

}  // namespace mixtune
