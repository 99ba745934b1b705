// Writes a checkpoint anew as a plain Hugging Face folder, from files to files: no more of it is ever in memory than
// what is being read and converted.
#pragma once

#include "base/progress_line.h"
#include "checkpoint/save.h"

namespace mixtune {

struct ExportReport {
  size_t tensors = 0, files = 0;
  uint64_t bytes = 0;     // of all tensors
  size_t from_state = 0;  // tensors whose weights came from state/
};

// Writes the weights of options.source in the hub's layout, an index if there is more than one file, the side files and
// config.json. `shape` has the source's tensors whole (check_weights) and needs no memory. A tensor that is written in
// the type of the source's file has its bytes; one that is not is rounded to nearest, ties to even, from what the
// source's state/ has of it, where it has any. The folder appears under its name complete, or not at all.
// `progress`, if any, is told how far the reading is. Throws UserError where a value is not finite, or too large for
// its type; Error where a file changes meanwhile.
ExportReport export_model(const State& shape, const SaveOptions& options, const BytesDone& progress = {});

}  // namespace mixtune
