// The adapters of a run: what they begin as, and how its checkpoints have them.
#pragma once

#include <string>

#include "checkpoint/hf_folder.h"
#include "checkpoint/save.h"
#include "checkpoint/stored_file.h"
#include "config/config.h"
#include "model/instance.h"

namespace mixtune {

// Fills the adapters: from the checkpoint that the run goes on from, whose files were `written`; from
// adapter_name_or_path; or from the seed. After the base's weights. Throws UserError for a folder that is no adapter of
// this model, or has others than the configuration asks for. All ranks call this.
void begin_adapters(const Config& config, Instance& instance, const StoredFiles& written);

// A digest of some values of each of a model's tensors, whatever files they are in and of whatever type: for the
// contract of a run whose checkpoints do not have their base.
std::string sample_digest(const HfFolder& folder, const MixtralConfig& shape);

// A model to compute with, and an adapter beside it.
struct ModelPaths {
  std::string base;
  std::string adapter = "";  // "": none
};
// `options` with room for the adapter, whichever of the model's projections it has pairs of. Throws UserError where it
// has one of another weight.
InstanceOptions with_adapter(InstanceOptions options, const ModelPaths& paths, const MixtralConfig& shape);
// Fills an instance of such options.
void load_model(Instance& instance, const ModelPaths& paths);

// `model`: how the base would be saved.
SaveOptions to_save_adapters(SaveOptions model, const Config& config, const Lora& lora);

}  // namespace mixtune
