// The search for layouts that fit: numbers of GPUs and settings, each counted by memory_plan.h.
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
  std::vector<Change> changes;  // to keys of the given configuration
  int64_t other_batch;          // rows of an optimizer step, where they cannot stay as given; 0: they do
  size_t bytes;                 // the least that a GPU needs, whatever the routing

  bool changes_numbers() const;
};

// The layouts that fit `memory` bytes a GPU, whatever the routing, on 1, 2, 4, ... 64 GPUs or `ranks` of them. First
// those that leave the numbers as they are: on `ranks` GPUs, then on the fewest. Then those on fewer still with other
// numbers (another dtype or global batch), the fewest last. No change of a layout can be left out. Empty: nothing fits.
// `plans`, if not null, gets the number of memory plans that were made: the cost of the search.
std::vector<Fit> search_fits(const MixtralConfig& shape, const Config& config, int ranks, size_t memory,
                             size_t* plans = nullptr);

}  // namespace mixtune
