// Merges LoRA adapters into their base: a model's folder of W + scaling B A, from files to files.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/progress_line.h"
#include "checkpoint/adapter_folder.h"
#include "checkpoint/held_base.h"
#include "checkpoint/save.h"

namespace mixtune {

struct WeightedAdapter {
  AdapterFolder folder;
  double weight = 1;  // times its scaling
};

struct MergeReport {
  uint64_t bytes = 0;                    // of all tensors
  size_t tensors = 0, files = 0;         // written
  std::map<std::string, size_t> merged;  // tensors that adapters have, by the last part of their module's name
  int64_t elements = 0, changed = 0;     // of these; those that are others than without adapters, in the type written
  double delta = 0, error = 0;           // Frobenius norms, of what is added and of what rounding makes of the sums
};

// Writes options.source with the adapters merged, as export_model does: in each weight that has pairs, W plus all
// adapters' weight * scaling * B A is summed in fp64 and rounded once, to nearest, ties to even. What an adapter has
// whole takes the place of W. Every other tensor has the bytes that export_model writes. With a `base` of
// options.source, W is what that has of it, also where no adapter has a pair. Holds the pairs of one weight at a time.
// Throws UserError where a sum is not finite, or too large for its type; for an adapter with whole weights and a weight
// other than 1; and where two adapters have the same whole.
MergeReport merge_adapters(const State& shape, const SaveOptions& options, std::vector<WeightedAdapter>& adapters,
                           const BytesDone& progress = {}, HeldBase* base = nullptr);

}  // namespace mixtune
