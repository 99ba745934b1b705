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

// What an export changes of some weights on their way.
class WeightEdit {
 public:
  virtual ~WeightEdit() = default;
  virtual bool edits(const std::string& tensor) const = 0;
  // Takes the source's values of a tensor that it edits, from element `first` on, which are finite: tensor after
  // tensor, each from its start on. Gives the bytes that are written of them, in the type of `to`, valid until the next
  // call.
  virtual std::span<const std::byte> edited(const TensorEntry& to, int64_t first, std::span<const double> values) = 0;
};

// Writes the weights of options.source in the hub's layout, an index if there is more than one file, the side files and
// config.json. `shape` has the source's tensors whole (check_weights) and needs no memory. A tensor that is written in
// the type of the source's file has its bytes; one that is not is rounded to nearest, ties to even, from what the
// source's state/ has of it, where it has any. With an `edit`, all are from the source's files. The folder appears
// under its name complete, or not at all. `progress`, if any, is told how far the reading is. Throws UserError where a
// value is not finite, or too large for its type; Error where a file changes meanwhile.
ExportReport export_model(const State& shape, const SaveOptions& options, const BytesDone& progress = {},
                          WeightEdit* edit = nullptr);

}  // namespace mixtune
