// What a run says of its router's losses as it starts.
#pragma once

#include "config/router_losses.h"
#include "model/mixtral_config.h"

namespace mixtune {

// Logs each loss with its coefficient. Warns where a coefficient of Megatron-Core's is the one that the checkpoint has
// for transformers' loss, which is another loss; and of an expert capacity.
void announce_router_losses(const Config& config, const RouterLosses& losses, const MixtralConfig& shape);

}  // namespace mixtune
