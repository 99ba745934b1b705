// What `mixtune inspect` prints of checkpoints.
#pragma once

#include <string>

namespace mixtune {

// A model folder: its shape, parameters (all, and active for a token), types, layout and files. Throws UserError as
// reading it would.
std::string describe_checkpoint(const std::string& folder);

// A safetensors file: its tensors, one a line.
std::string describe_safetensors(const std::string& path);

}  // namespace mixtune
