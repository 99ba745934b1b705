#include "cli/describe_adapter.h"

#include <fmt/format.h>

#include <map>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/adapter_folder.h"
#include "cli/describe_model.h"
#include "state/adapter_names.h"

namespace mixtune {

namespace {

std::string joined(const std::map<std::string, int64_t>& counts) {
  std::string text;
  for (const auto& [name, n] : counts) text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", n, name);
  return text;
}

}  // namespace

std::string describe_adapter(const std::string& folder) {
  const AdapterConfig config = read_adapter_config(folder);
  const SafetensorsFile file = open_adapter_weights(folder);
  std::map<std::string, int64_t> modules, whole, types;
  int64_t elements = 0;
  bool packed = false;
  for (const auto& [stored, tensor] : file.tensors()) {
    const AdapterTensorName name = parse_adapter_name(stored, printable_path(file.path()));
    if (name.factor != AdapterFactor::kBase) elements += tensor.shape.elements();
    ++types[printable(tensor.dtype_text, 16)];
    if (name.factor == AdapterFactor::kWhole) ++whole[target_module(name.module, AdapterNaming::kHub)];
    if (name.factor != AdapterFactor::kA) continue;
    ++modules[target_module(name.module, AdapterNaming::kHub)];
    packed |= name.kind != AdapterTensorName::kModule;
  }
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("{:<12} {}\n", name, value);
  };
  line("adapter",
       fmt::format("LoRA, rank {}, alpha {}{}{}", config.r, config.alpha, config.use_rslora ? ", rslora" : "",
                   config.rank_pattern.empty() && config.alpha_pattern.empty() ? "" : ", others by pattern"));
  line("base", config.base.empty() ? "not said" : printable(config.base, 200));
  line("pairs", modules.empty()
                    ? "none"
                    : fmt::format("{} ({})", joined(modules), packed ? "experts packed" : "one for each weight"));
  if (!whole.empty()) line("whole", joined(whole));
  line("parameters", std::to_string(elements));
  line("tensors", joined(types));
  if (!config.peft_version.empty()) line("saved by", "PEFT " + printable(config.peft_version, 40));
  return text;
}

}  // namespace mixtune
