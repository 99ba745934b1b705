// What a run says of its router as it starts.
#pragma once

#include "config/router_losses.h"
#include "model/mixtral_config.h"
#include "run/contract.h"

namespace mixtune {

// What the contract of a run has of it besides keys.
Contract contract_of_router(const Config& config, const RouterLosses& losses, const MixtralConfig& shape);

// Logs the scores where they are set, or are not Mixtral's, of which it warns; and each loss with its coefficient.
// Warns where a coefficient of Megatron-Core's is the one that the checkpoint has for transformers' loss, which is
// another loss; of an expert capacity; of experts that are drawn; and of those that sinkhorn chooses.
void announce_router(const Config& config, const RouterLosses& losses, const MixtralConfig& shape);

}  // namespace mixtune
