// Loads an adapter's pairs, and what it has whole, into a State.
#pragma once

#include <string>

#include "checkpoint/stored_file.h"
#include "state/state.h"

namespace mixtune {

struct AdapterRoom {
  double scale;       // what the model multiplies B A by
  bool pads = false;  // with zeros: pairs that the folder lacks, and those of a smaller rank; not to train them
};

// Fills the adapters of `state` (ParamSpec::Origin::kInitialised), what else of it is trained, and their masters, from
// a folder in any layout that AdapterFolder reads. A whole weight is taken as it is. A is taken as it is, and so is B
// where the pair's scaling is the room's; otherwise B is multiplied by what makes up for it. Throws UserError where the
// folder has a pair or a whole weight that the state has not, or, unless it pads, lacks one, or has one of another
// rank. `written`: what the folder's files were, or nothing; throws UserError where the weights are others. All ranks
// call this; each reads what it holds.
void load_adapter(Ctx& ctx, const std::string& folder, const AdapterRoom& room, State& state,
                  const StoredFiles& written = {});

}  // namespace mixtune
