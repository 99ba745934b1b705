#include "train/run_adapters.h"

#include "base/log.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/load_adapter.h"
#include "run/resume.h"

namespace mixtune {

void begin_adapters(const Config& config, Instance& instance, const StoredFiles& written) {
  const std::string checkpoint = checkpoint_of(config), &given = config.adapter.adapter_name_or_path;
  if (checkpoint.empty() && given.empty())
    return initialise_adapters(instance.ctx(), config.machine.seed, instance.state());
  const std::string& path = checkpoint.empty() ? given : checkpoint;
  load_adapter(instance.ctx(), path, instance.options().lora.scale, instance.state(), written);
  if (instance.ranks().grid.rank == 0) log_info("loaded the adapter {}", printable_path(path));
}

SaveOptions to_save_adapters(SaveOptions model, const Config& config, const Lora& lora) {
  model.what = SaveOptions::What::kAdapters;
  model.dtype = DType::kF32;  // that of the masters: a run goes on as it was
  model.config_json = format_adapter_config({.base = config.model.model_name_or_path,
                                             .r = lora.rank,
                                             .alpha = lora.scale * static_cast<double>(lora.rank),
                                             .target_modules = lora.modules()});
  return model;
}

}  // namespace mixtune
