// dry_run: what a run would do, told without its device.
#pragma once

#include <string>

#include "config/config.h"
#include "parallel/rank_grid.h"

namespace mixtune {

// Checks all that `train` checks before its first step but for the device: the settings, output_dir, the headers of the
// model's files, the tokeniser and the data, which it reads. Throws UserError as `train` does; writes nothing. Returns
// the resolved settings as YAML and, in comments there, what a run on the ranks of `grid` comes to: rows, steps,
// tokens, and each rank's memory (all that a GPU needs, memory_plan.h; on a CPU the state's).
std::string dry_run(const Config& config, const RankGrid& grid);

}  // namespace mixtune
