// Writes a model that is in no memory and no file: its values are computed on their way to the disk.
#pragma once

#include <cstdint>
#include <functional>

#include "base/progress_line.h"
#include "checkpoint/save.h"

namespace mixtune {

// Fills `to` [n], of the tensor's type and in host memory, with the tensor's elements from `first` on, which are
// finite.
using ComputeValues = std::function<void(const TensorEntry& tensor, int64_t first, const Tensor& to)>;

// Writes the folder of NewModelFolder, which says what it takes and throws; options.dtype is set. `values` is called on
// the calling thread with stretches of all tensors, of a few files by turns, while other threads write those before: it
// may use all cores. Takes 128 MiB of host memory, whatever the size of the model. `progress`, if any, is told how
// far it is. The folder appears under its name complete, or not at all.
void write_computed_model(Ctx& ctx, const State& shape, const SaveOptions& options, const ComputeValues& values,
                          const BytesDone& progress = {});

}  // namespace mixtune
