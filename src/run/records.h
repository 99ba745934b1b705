// The records of a run that goes on.
#pragma once

#include <cstdint>
#include <string>

namespace mixtune {

// Leaves in a metrics.jsonl the whole lines up to the last one of `step` or an earlier one, byte for byte: the run
// writes the later ones anew. A kill leaves the file as it was, or cut. Nothing happens where there is none.
void cut_records(const std::string& path, int64_t step);

// Leaves the first `size` bytes of a file. Throws UserError where that cannot be.
void cut_file(const std::string& path, uint64_t size);

}  // namespace mixtune
