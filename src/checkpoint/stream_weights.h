// Streams weights from files to a device at the speed of the disk, through a ring of host buffers.
#pragma once

#include "checkpoint/hf_folder.h"
#include "tensor/ctx.h"

namespace mixtune {

// Fills what this rank counts of state.primary of every parameter, from a folder that has all of them; it is there when
// this returns. Takes 256 MiB of host memory, the ring, whatever the size of the model; and of the ctx's stack a
// buffer's size (16 MiB) where types differ. Throws UserError where a value is not finite, and Error where a file
// cannot be read or has changed since `folder` was made.
void stream_weights(Ctx& ctx, const HfFolder& folder, State& state);

}  // namespace mixtune
