// What a run reads, in the order in which a Trainer comes to it.
#pragma once

#include <functional>

#include "checkpoint/model_folder.h"
#include "config/config.h"
#include "model/instance.h"
#include "run/output_folder.h"
#include "train/run_data.h"

namespace mixtune {

// These two need the run's settings alone, no device.
OutputRequest output_request(const Config& config);
MixtralConfig model_shape(const Config& config, const ModelFolder& folder);

// Warns of learning rates of groups that are frozen.
void warn_of_frozen_groups(const Config& config, const MixtralConfig& shape);

// Opens the model's folder, once output_dir is known to be usable.
ModelFolder open_model(const Config& config, const Ranks& ranks);
// Reads the data, once the weights are known to fit, by load_run_data or load_validation_data. Where there is a cache,
// rank 0 fills it and the others read it. All ranks call this; throws UserError where they have read other data.
using LoadData = RunData (*)(const Config&, const MixtralConfig&, const std::function<void()>& advanced);
RunData checked_data(const Config& config, const HfFolder& weights, Instance& instance, LoadData load);
// Makes the model's folder what checkpoints are to have, once it is known what is trained.
void adapt(ModelFolder& folder, const MixtralConfig& shape, const Config& config, const RunData& data);

}  // namespace mixtune
