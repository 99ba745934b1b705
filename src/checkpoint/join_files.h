// Puts the tensors of several safetensors files into one.
#pragma once

#include <span>
#include <string>

#include "checkpoint/stored_file.h"

namespace mixtune {

// Writes folder/name with all tensors of the folder's files `parts`, in the order of their names; it is on the disk
// when this returns. No two have a tensor of one name, and all are of a type that weights have.
StoredFile join_files(const std::string& folder, std::span<const std::string> parts, const std::string& name);

}  // namespace mixtune
