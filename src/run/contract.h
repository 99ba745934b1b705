// The contract of a run: what must be the same when it goes on from a checkpoint, so that it is the run that was begun.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "config/config.h"

namespace mixtune {

// Values by their names in messages: of keys as format_value has them, and of what no key says.
using Contract = std::map<std::string, std::string>;

// Whether a key may differ: paths, the layout and precision, memory, what is logged, evaluated and saved, how a global
// batch is cut. Every other key is part of the contract.
bool may_differ(std::string_view key);

// The keys of the contract.
Contract contract_of(const Config& config);

// Throws UserError naming what differs in `now` from `before`, less what config.output.allow_changes has. What either
// lacks is no difference: another version wrote it. `rows_per_step` and `freeze` are never allowed to change.
void check_contract(const Contract& before, const Contract& now, const Config& config);

// Throws UserError where allow_changes names something that is neither a key of the contract nor in it besides.
void check_allowed_names(const Config& config);

}  // namespace mixtune
