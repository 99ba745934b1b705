// The folder that a command is to make.
#pragma once

#include <string>

namespace mixtune {

// Throws UserError where `out` is empty or something has this name.
void check_new_folder(const std::string& out);

// Makes the folders that `out` is to lie in, where they are not there yet. Throws UserError.
void make_parent_folder(const std::string& out);

}  // namespace mixtune
