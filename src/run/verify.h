// Whether a checkpoint's files still have the bytes that were written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/progress_line.h"

namespace mixtune {

struct Verification {
  size_t files = 0;
  uint64_t bytes = 0;             // that were read
  std::vector<UserError> faults;  // a line each, in the order of the files; none: all is as written
};

// Reads every byte of the files that the checkpoint's manifest names, and holds them against its digests. Warns of
// files that it does not name. `progress`, if any, is told how far it is. Throws UserError where the folder has no
// manifest, or a damaged one.
Verification verify_checkpoint(const std::string& checkpoint, const BytesDone& progress = {});

}  // namespace mixtune
