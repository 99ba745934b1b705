// Loads weights from a Hugging Face folder into a State.
#pragma once

#include <string>

#include "checkpoint/hf_folder.h"
#include "checkpoint/stored_file.h"
#include "state/state.h"

namespace mixtune {

// Matches all tensors of the folder with those of `state`, on whatever rank they are. A missing one, one of another
// shape, and one that the state does not use are UserErrors. Reads no weights. Only these are ignored:
// `rotary_emb.inv_freq`, which older transformers stored; a `lm_head.weight` that equals the embedding it is tied to;
// and what the folder's index does not list (transformers ignores that too, and uses it where the model has a place).
void check_weights(const HfFolder& folder, const State& state);

struct LoadReport {
  uint64_t bytes = 0;  // read by this rank
  double seconds = 0;

  std::string str() const;  // "93.41 GB in 51.24 s, 1.82 GB/s"
};

// Fills every weight of `state` and its master, after check_weights; they are there when it returns. All ranks call
// this: on CPUs they read every byte of the folder once between them, and send each other the rest. Rows that the
// folder lacks (HfBlock::added) are made of those that it has (added_rows.h). `written`: what the folder's files were,
// by their names, or nothing; throws UserError where a tensor is another.
LoadReport load_weights(Ctx& ctx, const HfFolder& folder, State& state, const StoredFiles& written = {});

}  // namespace mixtune
