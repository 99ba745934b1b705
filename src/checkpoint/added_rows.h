// Rows that a model has and the checkpoint that it is loaded from lacks: those of tokens that a user added.
#pragma once

#include <cstdint>

#include "checkpoint/hf_folder.h"
#include "tensor/ctx.h"

namespace mixtune {

// Fills what this rank counts of state.primary of the added rows (HfBlock::added) of every parameter. Each is the mean
// of the tensor's rows in `folder`, all of them: every column is summed in fp64 in the order of the rows, and its mean
// is rounded to fp32 (and from there to what the primary holds, as a value of an fp32 checkpoint). So it has the same
// bits on every layout of ranks, and whatever the types of the state. A rank that counts some of these rows reads the
// tensor for them, 8 MiB at a time; the others read nothing. Returns the bytes that it read; `folder` has what the
// state asks for. Throws as HfFolder::read does.
uint64_t fill_added_rows(Ctx& ctx, const HfFolder& folder, State& state);

}  // namespace mixtune
