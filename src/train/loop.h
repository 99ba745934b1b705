// train: a fine-tuning run from its settings to the last checkpoint.
#pragma once

#include "config/config.h"
#include "parallel/ranks.h"

namespace mixtune {

// Trains as `config` says (design.md, section 4, for the arithmetic). All mistakes in the settings, the model and the
// data are found before output_dir is touched: UserError. Throws Error later, with ExitCode::kWentBad where the loss or
// the gradients stopped being finite. `profile`: writes a trace of one step there. All `ranks` call this with the same
// settings; rank 0 alone writes and prints. Returns whether the run was stopped before its last step, with a
// checkpoint: by a signal, or because its time is nearly over (run/requests.h).
bool train(const Config& config, bool profile, const Ranks& ranks);

}  // namespace mixtune
