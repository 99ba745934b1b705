// The records of a run that goes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mixtune {

// No line of a metrics.jsonl that a run wrote is longer: bytes.
constexpr size_t kLongestRecord = 16 << 20;

// Leaves in a metrics.jsonl the whole lines up to the last one of `step` or an earlier one, byte for byte: the run
// writes the later ones anew. A kill leaves the file as it was, or cut. Nothing happens where there is none.
void cut_records(const std::string& path, int64_t step);

// Leaves the first `size` bytes of a file. Throws UserError where that cannot be.
void cut_file(const std::string& path, uint64_t size);

}  // namespace mixtune
