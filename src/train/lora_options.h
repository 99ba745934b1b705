// The keys `adapter` and `lora_*` as what the model takes.
#pragma once

#include "config/config.h"
#include "model/lora.h"

namespace mixtune {

// Throws UserError for modules that cannot be adapted, and for keys that mean nothing without `adapter: lora`.
Lora lora_of(const Config& config);

}  // namespace mixtune
