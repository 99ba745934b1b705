// Helpers for the tests of this folder.
#pragma once

#include <string>

#include "base/error.h"
#include "config/load.h"

namespace mixtune {

// The message that reading `text` (and flags) ends in; "" if it does not.
inline std::string error_of(const std::string& text, const Overrides& overrides = {}) {
  try {
    parse_config(text, "run.yaml", overrides);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

struct BadText {
  const char *text, *message;
};

}  // namespace mixtune
