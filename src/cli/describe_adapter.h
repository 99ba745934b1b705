// What `inspect` says of an adapter's folder.
#pragma once

#include <string>

namespace mixtune {

// Lines of text. Needs no base, so shapes are not held against one. Throws UserError.
std::string describe_adapter(const std::string& folder);

}  // namespace mixtune
