// From the keys of the "Machine" group to what an Instance is made of.
#pragma once

#include "config/config.h"
#include "model/instance.h"

namespace mixtune {

// device: auto is the first GPU, where there is one and this build can use it.
Device choose_device(DeviceChoice choice);

// Throws UserError where the keys do not fit each other, the build or the machine. Touches no GPU but to count them.
// `ranks`: as InstanceOptions has it.
InstanceOptions instance_options(const Config& config, State::Purpose purpose, Ranks* ranks = nullptr);

// The same for a GPU that need not be here (DeviceType::kMeta), for training.
InstanceOptions planned_options(const Config& config);

// "one NVIDIA H100 80GB HBM3, bf16 with fp32 master weights" for the first line of a run.
std::string describe(const InstanceOptions& options);

}  // namespace mixtune
