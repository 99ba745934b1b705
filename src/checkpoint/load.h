// Weights from a Hugging Face folder into a State.
#pragma once

#include "checkpoint/hf_folder.h"
#include "state/state.h"

namespace mixtune {

// Matches all tensors of the folder with those of `state`: a missing one, one of another shape, and one that the state
// does not use are UserErrors. Reads no weights. Left aside are only `rotary_emb.inv_freq`, which older transformers
// stored, and a `lm_head.weight` that equals the embedding it is tied to.
void check_weights(const HfFolder& folder, const State& state);

// Fills every weight of `state`, once they are checked as above.
void load_weights(const HfFolder& folder, State& state);

}  // namespace mixtune
