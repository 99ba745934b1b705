// `mixtune train --megatron_args`: what of it needs the model.
#pragma once

#include "config/megatron_run.h"

namespace mixtune {

// Holds config.model's shape against what the arguments say of it, and sets what depends on it. Throws UserError for a
// difference; only the vocabulary of a checkpoint that the run goes on from may be larger. `config` was loaded with
// run.settings, and its model is there.
void apply_to_model(const MegatronRun& run, Config& config);

}  // namespace mixtune
