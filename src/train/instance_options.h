// What an Instance is made of, by the keys of the "Machine" group.
#pragma once

#include "config/config.h"
#include "model/instance.h"

namespace mixtune {

// The device of the process `local_rank` of this machine. `auto` is a GPU where there is one and this build can use it.
// It is the GPU of that number, or the only one that the process sees.
Device choose_device(DeviceChoice choice, int local_rank = 0);

// The device of the job's rank; without a job, the one that config chooses.
Device device_of(const Config& config, const Ranks& ranks);

Freeze freeze_of(const Config& config);

// How products run on a GPU of this compute capability (Hopper's: 90); on the CPU, 0.
RecipeOptions recipe_options(const Config& config, int compute_capability);

// What of that no GPU has run yet, as a warning; empty: nothing.
std::string untried(const RecipeOptions& recipe);

// Sets the precision of an inference on `device`, where config names none: bf16 on a GPU for weights that are bf16;
// else fp32, which holds any.
void choose_precision(Config& config, const MixtralConfig& model, DeviceType device);

// The options of a run. Throws UserError where the keys do not fit each other, the build or the machine. Takes
// nothing of a GPU. `ranks` outlive the instance.
InstanceOptions instance_options(const Config& config, State::Purpose purpose, const Ranks& ranks = single_rank());

// The options to train on a GPU that need not be here (DeviceType::kMeta).
InstanceOptions planned_options(const Config& config, const Ranks& ranks = single_rank());

// "one NVIDIA H100 80GB HBM3, bf16 with fp32 master weights" for the first line of a run.
std::string describe(const InstanceOptions& options);

}  // namespace mixtune
