// The cheap checks before any heavy work: what a config names is there.
#pragma once

#include <string>

#include "config/config.h"

namespace mixtune {

// The folder of a model that `path` means, as model_folder has it, which has a config.json. Throws UserError at `where`
// for any other.
std::string find_model(const std::string& path, const std::string& where, bool say = true);

// Throws UserError unless the data files that are named can be read and begin as they should. Keys are reported where
// they were set.
void check_data_files(const Config& config);

}  // namespace mixtune
