// The cheap checks before any heavy work: what a config names is there.
#pragma once

#include <string>

#include "config/config.h"

namespace mixtune {

// Each throws UserError unless what is named is what it should be: a folder with a config.json, files that can be read.
// Keys are reported where they were set.
void check_model(const std::string& folder, const std::string& where);
void check_data_files(const Config& config);

}  // namespace mixtune
