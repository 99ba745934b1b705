// The work of a ladder as its JSON says it, which peers must share.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "bench/ladder.h"

namespace mixtune {

nlohmann::ordered_json workload_of(const LadderBench& bench);

}  // namespace mixtune
