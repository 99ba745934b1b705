// Whether the keys of the data fit each other.
#pragma once

#include "config/config.h"

namespace mixtune {

// Throws UserError, at the key that is to change, where two keys exclude each other, or one needs another.
void check_data(const Config& config);

}  // namespace mixtune
