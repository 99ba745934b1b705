// Writing the manifest of a checkpoint that all ranks have written together.
#pragma once

#include <functional>

#include "parallel/ranks.h"
#include "run/manifest.h"

namespace mixtune {

// Adds the files of `folder` to `manifest`, whose digests the ranks share out between them, and writes it there (rank
// 0). `advanced` is called every 16 MiB. All ranks call this, once every other file is there.
void write_manifest(Ctx& ctx, const std::string& folder, Manifest manifest, Communicator& world,
                    const std::function<void()>& advanced);

}  // namespace mixtune
