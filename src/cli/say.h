// say: prints what a command has to say at once.
#pragma once

#include <string_view>

namespace mixtune {

// Prints to standard output, and flushes it. Throws Error where that cannot be written in full.
void say(std::string_view text);

}  // namespace mixtune
