// warm_up: all that comes before the first step. It finds what layers must drop where memory is short, and which
// routing then fits; and it runs made-up tokens forward and backward, so that libraries choose their algorithms.
#pragma once

#include <string>

#include "kernels/warm_up.h"
#include "model/instance.h"

namespace mixtune {

// Leaves weights and moments as they are; the next begin_step forgets the gradients. Returns the digest of the
// algorithms of the ranks' matrix products (SharedPlans); "" on the CPU, where it does nothing. All ranks call this.
std::string warm_up(Instance& instance, BatchLimits limits);

}  // namespace mixtune
