// The search for what fits: numbers of GPUs and settings, each counted by memory_plan.h.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/mixtral_config.h"

namespace mixtune {

struct Change {
  std::string key, value;
  bool changes_numbers;  // Saving::changes_numbers
};

struct Fit {
  int ranks;
  std::vector<Change> changes;  // of the keys of the given configuration
  int64_t other_batch;          // rows of an optimizer step where they cannot be as many as given; 0: they are
  size_t bytes;                 // that a GPU needs at the least, whatever the routing

  bool changes_numbers() const;
};

// What fits `memory` bytes a GPU, whatever the routing, on 1, 2, 4, ... 64 GPUs or `ranks` of them. First what leaves
// the numbers as they are: on `ranks` GPUs, then on the fewest; then what fits on fewer still with other numbers (of
// another dtype or global batch), the fewest last. None of the changes can be left out. Empty: nothing fits.
// `plans`, where given, becomes the number of memory plans that it took, which is what the search costs.
std::vector<Fit> search_fits(const MixtralConfig& shape, const Config& config, int ranks, size_t memory,
                             size_t* plans = nullptr);

}  // namespace mixtune
