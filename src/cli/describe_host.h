// What this machine gives a run beside GPUs, for 'mixtune doctor'.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace mixtune {

// Rows of a name and what there is: processor, the instruction set that oneDNN uses on it, host memory, disk space of
// the working folder.
std::vector<std::pair<std::string, std::string>> describe_host();

}  // namespace mixtune
