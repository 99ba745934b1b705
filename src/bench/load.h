// 'mixtune bench load': how fast a checkpoint's weights reach the device, and what that takes of the host.
#pragma once

#include <string>

#include "model/instance.h"

namespace mixtune {

// Measures the load. Returns the report.
std::string bench_load(const std::string& folder, const InstanceOptions& options);

}  // namespace mixtune
