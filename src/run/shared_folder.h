// find_unshared: whether the ranks of a job see one folder, and not each another of the same name.
#pragma once

#include <chrono>
#include <string>

#include "parallel/ranks.h"

namespace mixtune {

// Rank 0 writes a file in its `folder`, every other rank looks for that in what is `folder` there, and rank 0 removes
// it. A file system may show a rank only after a while what another wrote: a rank looks for as long as `patience`.
// Returns, the same in every rank, which rank does not find it or may not write there, on which host and where; ""
// where there is none. All ranks call this.
std::string find_unshared(Ctx& ctx, Communicator& ranks, const std::string& folder, std::chrono::milliseconds patience);

}  // namespace mixtune
