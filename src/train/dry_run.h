// What a run would do, without its device.
#pragma once

#include <string>

#include "config/config.h"
#include "parallel/rank_grid.h"

namespace mixtune {

// Checks all that `train` checks before its first step but for the device: the settings, output_dir, the headers of the
// model's files, the tokeniser and the data, which are read. Throws UserError as it does; writes nothing. Returns the
// resolved settings as YAML and, as comments of it, what a run on the ranks of `grid` comes to: rows, steps, tokens,
// and the memory of each rank: all that a GPU needs (memory_plan.h), or the state's on a CPU.
std::string dry_run(const Config& config, const RankGrid& grid);

}  // namespace mixtune
