// The keys `adapter` and `lora_*` as what the model takes.
#pragma once

#include "config/config.h"
#include "model/lora.h"
#include "model/mixtral_config.h"

namespace mixtune {

// Throws UserError for modules that cannot be adapted or trained whole, and for keys that mean nothing without
// `adapter: lora`.
Lora lora_of(const Config& config);

// Throws UserError where what is to be trained, in pairs or whole, cannot be so in a model of this shape, or is frozen.
void check_trained(const Config& config, const MixtralConfig& shape);

}  // namespace mixtune
