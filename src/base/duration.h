// Times, as people write them.
#pragma once

#include <string>

namespace mixtune {

// Seconds of "90s", "45m", "2h", "1.5h", or as Slurm writes them: "30:00" (minutes), "2:30:00", "1-12:00:00" (days).
// Throws UserError, without a place: the caller knows which key it came from.
double parse_duration(const std::string& text);

}  // namespace mixtune
