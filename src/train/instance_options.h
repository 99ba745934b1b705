// From the keys of the "Machine" group to what an Instance is made of.
#pragma once

#include "config/config.h"
#include "model/instance.h"

namespace mixtune {

// device: auto is a GPU, where there is one and this build can use it: of the process `local_rank` of this machine the
// one of that number, or the only one that it sees.
Device choose_device(DeviceChoice choice, int local_rank = 0);

// That of the job's ranks, or the choice of one without a job.
Device device_of(const Config& config, const Ranks& ranks);

// Throws UserError where the keys do not fit each other, the build or the machine. Touches no GPU but to count them.
// `ranks` outlive the instance.
InstanceOptions instance_options(const Config& config, State::Purpose purpose, const Ranks& ranks = single_rank());

// The same for a GPU that need not be here (DeviceType::kMeta), for training.
InstanceOptions planned_options(const Config& config, const Ranks& ranks = single_rank());

// "one NVIDIA H100 80GB HBM3, bf16 with fp32 master weights" for the first line of a run.
std::string describe(const InstanceOptions& options);

}  // namespace mixtune
