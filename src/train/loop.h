// A fine-tuning run from its settings to the last checkpoint.
#pragma once

#include "config/config.h"
#include "parallel/ranks.h"

namespace mixtune {

// Trains as `config` says (design.md, section 4, for the arithmetic). Everything that can be wrong with the settings,
// the model and the data is found before output_dir is touched. Throws UserError then; later Error, with
// ExitCode::kWentBad where the loss or the gradients stopped being finite. profile: writes a trace of one step there.
// All `ranks` call this with the same settings; what rank 0 alone does is to write and print.
void train(const Config& config, bool profile, const Ranks& ranks);

}  // namespace mixtune
