// Loads the weights that a State holds as codes.
#pragma once

#include "checkpoint/hf_folder.h"
#include "state/state.h"

namespace mixtune {

// Fills the weights held as codes, which are made of the folder's values, each rounded to the state's dtype; of NF4,
// where the folder has a tensor as codes of the same kind, doubly quantised in blocks of 64 and of bf16, those codes.
// Each rank reads all of what it holds. Takes of the ctx's stack, for a while, as many values as half of it has room
// for, but one tensor's at least. Throws as load_weights does.
void encode_weights(Ctx& ctx, const HfFolder& folder, State& state);

// The bytes that this rank reads for that.
uint64_t encoded_bytes(const HfFolder& folder, const State& state);

}  // namespace mixtune
