// Loads an adapter's pairs into a State.
#pragma once

#include <string>

#include "checkpoint/stored_file.h"
#include "state/state.h"

namespace mixtune {

// Fills the adapters of `state` (ParamSpec::Origin::kInitialised), and their masters, from a folder in any layout that
// AdapterFolder reads. A is taken as it is, and so is B where the folder's scaling is `scale`; otherwise B is
// multiplied by what makes up for it. Throws UserError where the folder lacks one of the pairs, has another, or one of
// another rank. `written`: what the folder's files were, or nothing; throws UserError where the weights are others. All
// ranks call this; each reads what it holds.
void load_adapter(Ctx& ctx, const std::string& folder, double scale, State& state, const StoredFiles& written = {});

}  // namespace mixtune
