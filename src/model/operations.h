// The floating-point operations that a model's mathematics asks for: by them a run tells its TFLOP/s and MFU.
#pragma once

#include "model/freeze.h"
#include "model/mixtral_config.h"

namespace mixtune {

// As the peers count them (Megatron-Core's formula, and 6 N for N active parameters): a multiplication and an addition
// are two; forward, the gradient that is passed down, and that of a weight which is trained count the same, so training
// is three times forward where nothing is frozen. Counted are
// - the products of a token with weights (and with adapters): attention's projections, those of num_experts_per_tok
// experts, also where
//   capacity drops some, and the head, also of tokens without a target; not the embedding (a look-up), norms or router;
// - attention's two products of a token with those it sees: of its own document alone, and of that itself and what is
//   before it, which is half of the square of the document's length; within a sliding window no more than that.
// What is computed again, rounding to 8 bits, rows that only fill up a batch, and AdamW count nothing.
struct ModelOperations {
  double token = 0;   // for each token
  double pair = 0;    // for each pair of a token and one that it sees
  double window = 0;  // the most that a token sees; 0: all of its document before it

  // For documents of so many tokens together, whose lengths have squares of this sum.
  double of(double tokens, double squared_lengths) const;
};

ModelOperations forward_operations(const MixtralConfig& config);
ModelOperations training_operations(const MixtralConfig& config, const Freeze& freeze = {}, const Lora& lora = {});

}  // namespace mixtune
