// The charts of a report: which numbers of the runs stand in which.
#pragma once

#include <span>
#include <string>

#include "report/report.h"

namespace mixtune {

// All of them, in a grid. A number that is 0 in every step is only named.
std::string charts_of(std::span<const ReportedRun> runs);

}  // namespace mixtune
