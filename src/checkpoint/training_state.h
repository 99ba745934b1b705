// What training needs of a State beyond the weights of a checkpoint: the moments, and weights that are finer than the
// checkpoint's files. On the disk, in `state/` beside these files, they are ranges of boxes of Hugging Face tensors:
// every layout reads what every other one wrote.
//
// state/index.json: {"weights": [names], "pieces": [{"file", "entry", "tensor", "kind", "shape", "begin", "size",
// "first", "count"}, ...]}: the entry [count] of the safetensors file `file` has the elements [first, first + count) of
// the box [begin, begin + size) of `tensor`, whose whole shape is `shape`. `kind` is "weight", "exp_avg" or
// "exp_avg_sq". "weights": [...] names the tensors that have pieces of the first kind.
#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/save.h"

namespace mixtune {

constexpr const char* kStateFolder = "state";
constexpr const char* kResumeOther = "resume from another checkpoint";  // the mend where one is damaged

// Puts the folder `state` into a checkpoint that is being made with these options (its folder is there). Each rank
// writes files of what it counts; rank 0 the index. All ranks call this. Where a value is not finite, the checkpoint
// fails with an Error (kWentBad).
void put_training_state(Ctx& ctx, const State& state, const SaveOptions& options, Communicator& world,
                        PendingCheckpoint& pending);

// The bytes of this rank's files.
uint64_t training_state_bytes(const State& state, const SaveOptions& options);

// Fills the moments of all trained parameters, and the weights that `folder`/state has, from whatever layout; the other
// weights are as load_weights left them. Nothing in the folder is trusted: throws UserError unless it has each element
// once. `written`: what the checkpoint's files were, by their paths in it, or nothing; throws UserError where a tensor
// of state/ is another. All ranks call this.
void load_training_state(Ctx& ctx, const std::string& folder, State& state, const StoredFiles& written = {});

}  // namespace mixtune
