// Added rows: those of tokens that a user added, which a model has and the checkpoint to load from lacks.
#pragma once

#include <cstdint>

#include "checkpoint/hf_folder.h"
#include "tensor/ctx.h"

namespace mixtune {

// Fills the added rows (HfBlock::added) of state.primary of every parameter, as far as this rank counts them. A row is
// the mean of all rows of the tensor in `folder`: every column is summed in fp64 in the order of the rows, and its mean
// is rounded to fp32 (and from there to the primary's type, as a value of an fp32 checkpoint). So it has the same bits
// on every layout of ranks, and whatever the types of the state. A rank that counts some of these rows reads the tensor
// for them, in little memory (read_in_turn); the others read nothing. Returns the bytes it read. `folder` has what the
// state asks for. Throws UserError where a value is not finite, and Error where the file has changed since `folder` was
// made.
uint64_t fill_added_rows(Ctx& ctx, const HfFolder& folder, State& state);

}  // namespace mixtune
