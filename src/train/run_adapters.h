// The adapters of a run: what they begin as, and how its checkpoints have them.
#pragma once

#include "checkpoint/save.h"
#include "checkpoint/stored_file.h"
#include "config/config.h"
#include "model/instance.h"

namespace mixtune {

// Fills the adapters: from the checkpoint that the run goes on from, whose files were `written`; from
// adapter_name_or_path; or from the seed. After the base's weights. Throws UserError for a folder that is no adapter of
// this model, or has others than the configuration asks for. All ranks call this.
void begin_adapters(const Config& config, Instance& instance, const StoredFiles& written);

// `model`: how the base would be saved.
SaveOptions to_save_adapters(SaveOptions model, const Config& config, const Lora& lora);

}  // namespace mixtune
