// Weights from a Hugging Face folder into a State.
#pragma once

#include "checkpoint/hf_folder.h"
#include "state/state.h"

namespace mixtune {

// Fills every weight of `state`. All tensors are matched before any is read: a missing one, one of another shape, and
// one that the state does not use are UserErrors. Left aside are only `rotary_emb.inv_freq`, which older transformers
// stored, and a `lm_head.weight` that equals the embedding it is tied to.
void load_weights(const HfFolder& folder, State& state);

}  // namespace mixtune
