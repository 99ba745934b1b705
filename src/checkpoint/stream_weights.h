// Streams weights from files to a device at the speed of the disk, through a ring of host buffers.
#pragma once

#include "checkpoint/hf_folder.h"
#include "checkpoint/stored_file.h"
#include "tensor/ctx.h"

namespace mixtune {

// Fills what this rank counts of state.primary of every parameter, from a folder that has all of them; it is there when
// this returns. `written`: what the folder's files were, by their names, or nothing. Takes memory, and throws, as
// stream() does; Error also where a file has changed since `folder` was made.
void stream_weights(Ctx& ctx, const HfFolder& folder, State& state, const StoredFiles& written = {});

}  // namespace mixtune
