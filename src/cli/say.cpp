#include "cli/say.h"

#include <fmt/format.h>

#include <cstdio>

#include "base/error.h"

namespace mixtune {

void say(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error("standard output", "cannot be written in full", "check where it goes for a full disk or a closed pipe");
}

}  // namespace mixtune
