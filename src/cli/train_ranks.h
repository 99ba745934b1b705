// `mixtune train` on several ranks: starting them on this machine, or being one of them.
#pragma once

#include "config/config.h"
#include "parallel/launch.h"

namespace mixtune {

// Runs this process's command line, less --nproc, as `count` ranks, and waits for them. Throws Error with the job's one
// message where it failed.
void supervise_ranks(const Config& config, int count);

// Trains as the rank that `launch` says. Throws Ended where the job failed and another process tells why.
void train_as_rank(const Config& config, const Launch& launch, bool profile);

}  // namespace mixtune
