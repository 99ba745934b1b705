#include "run/resume.h"

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/staged.h"
#include "checkpoint/adapter_config.h"
#include "checkpoint/run_folder.h"
#include "model/mixtral_config.h"
#include "run/contract.h"
#include "run/manifest.h"

namespace mixtune {

namespace {

// The newest checkpoint of the run's folder that is whole and has a training's state; "" where there is none, and none
// is in the way.
std::string newest_whole(const Config& config, const std::string& folder, bool say) {
  const std::vector<int64_t> steps = checkpoint_steps(folder);
  std::string passed_over;
  for (size_t i = steps.size(); i-- > 0;) {
    const std::string path = folder + "/" + checkpoint_name(steps[i]);
    try {
      read_manifest(path);
      if (!passed_over.empty() && say) log_warning("{}; {} is taken", passed_over, checkpoint_name(steps[i]));
      return path;
    } catch (const Error& error) {
      if (passed_over.empty()) passed_over = error.what();
    }
  }
  if (passed_over.empty() || config.output.overwrite_output_dir) return "";
  throw UserError(config.where("resume_from_checkpoint"),
                  fmt::format("no checkpoint of {} can be gone on from: {}", printable_path(folder), passed_over),
                  "or set overwrite_output_dir: true to begin anew");
}

std::string chosen(const Config& config, bool say) {
  const std::string& wanted = config.output.resume_from_checkpoint;
  if (wanted != "auto") return without_trailing_slash(newest_checkpoint(wanted, say));
  const std::string folder = without_trailing_slash(config.output.output_dir);
  std::string path = newest_whole(config, folder, say);
  if (path.empty() && say) log_info("{}: no checkpoint to go on from: the run begins", printable_path(folder));
  return path;
}

// Throws where the model that the run is to begin with has another shape than the checkpoint. One that is not there,
// any more or yet, says nothing.
void check_shape(const Config& config, const std::string& checkpoint) {
  std::error_code error;
  const std::string& model = config.model.model_name_or_path;
  if (!std::filesystem::exists(model + "/config.json", error)) return;
  const MixtralConfig named = load_mixtral_config(model), stored = load_mixtral_config(checkpoint);
  using Member = int64_t MixtralConfig::*;
  constexpr std::array<std::pair<const char*, Member>, 8> kShape = {
      {{"hidden_size", &MixtralConfig::hidden_size},
       {"intermediate_size", &MixtralConfig::intermediate_size},
       {"num_hidden_layers", &MixtralConfig::num_hidden_layers},
       {"num_attention_heads", &MixtralConfig::num_attention_heads},
       {"num_key_value_heads", &MixtralConfig::num_key_value_heads},
       {"head_dim", &MixtralConfig::head_dim},
       {"num_local_experts", &MixtralConfig::num_local_experts},
       {"num_experts_per_tok", &MixtralConfig::num_experts_per_tok}}};
  for (const auto& [key, member] : kShape)
    if (named.*member != stored.*member)
      throw UserError(config.where("model_name_or_path"),
                      fmt::format("has {} {}, and {} has {}: it is of another model", key, named.*member,
                                  printable_path(checkpoint), stored.*member),
                      "name the model that the run began with, or another output_dir");
}

bool is_adapter(const std::string& checkpoint) {
  std::error_code error;
  return std::filesystem::exists(checkpoint + "/" + kAdapterConfigFile, error);
}

// Throws where the checkpoint is of the other kind of training.
void check_kind(const Config& config, const std::string& checkpoint) {
  const bool adapter = config.adapter.is_set();
  if (adapter == is_adapter(checkpoint)) return;
  throw UserError(
      config.where("resume_from_checkpoint"),
      fmt::format("{} is {}", printable_path(checkpoint), adapter ? "a model, not an adapter" : "an adapter"),
      adapter ? "put back adapter: none" : "put back adapter: lora, and the base as model_name_or_path");
}

}  // namespace

bool choose_checkpoint(Config& config, bool say) {
  check_allowed_names(config);
  if (config.output.resume_from_checkpoint.empty()) return false;
  const std::string path = chosen(config, say);
  if (path.empty()) return false;
  const Manifest manifest = read_manifest(path);
  check_kind(config, path);
  if (!is_adapter(path)) check_shape(config, path);
  check_contract(manifest.contract, contract_of(config), config);
  if (say) log_info("{}: the run goes on after step {}", printable_path(path), manifest.step);
  if (is_adapter(path)) {
    config.adapter_checkpoint = path;
    return true;
  }
  config.begun_from = config.model.model_name_or_path;
  config.model.model_name_or_path = path;
  return true;
}

std::string checkpoint_of(const Config& config) {
  if (!config.adapter_checkpoint.empty()) return config.adapter_checkpoint;
  return config.begun_from.empty() ? "" : config.model.model_name_or_path;
}

Config as_begun(Config config) {
  if (!config.begun_from.empty()) config.model.model_name_or_path = std::exchange(config.begun_from, "");
  return config;
}

}  // namespace mixtune
