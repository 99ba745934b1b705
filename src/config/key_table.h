// The rows of the table of keys.
#pragma once

#include <vector>

#include "config/keys.h"

namespace mixtune {

std::vector<Key> make_key_table();

}  // namespace mixtune
