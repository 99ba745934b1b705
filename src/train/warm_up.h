// Before the first step: what layers must drop where memory is short, and which routing then fits; and one forward and
// backward of made-up tokens, in which libraries choose their algorithms.
#pragma once

#include <string>

#include "kernels/warm_up.h"
#include "model/instance.h"

namespace mixtune {

// All ranks call this. Leaves weights and moments as they are; gradients are forgotten by the next begin_step. Returns
// the digest of the algorithms that the ranks' matrix products take from here on (SharedPlans). Nothing on the CPU.
std::string warm_up(Instance& instance, BatchLimits limits);

}  // namespace mixtune
