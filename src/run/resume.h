// The checkpoint that a run goes on from.
#pragma once

#include "config/config.h"

namespace mixtune {

// Where config.output.resume_from_checkpoint asks for a checkpoint and there is one, makes it config's
// model_name_or_path, and config.begun_from the model of before; or, of an adapter, config.adapter_checkpoint. `auto`
// means the newest whole one of output_dir; none there: false, the run begins. A path means a checkpoint, or the newest
// of a run's folder. Logs what is chosen, if `say`. Throws UserError where the checkpoint cannot be gone on from, or by
// another run (check_contract).
bool choose_checkpoint(Config& config, bool say);

// The checkpoint that was chosen; "" where the run begins.
std::string checkpoint_of(const Config& config);

// The configuration as it was given, before choose_checkpoint.
Config as_begun(Config config);

}  // namespace mixtune
