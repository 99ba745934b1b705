// AdapterConfig: adapter_config.json, which says how the tensors of an adapter's folder are used.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/adapter_pattern.h"

namespace mixtune {

constexpr const char* kAdapterConfigFile = "adapter_config.json";
constexpr const char* kAdapterWeightsFile = "adapter_model.safetensors";

// Of a LoRA adapter that adds scaling * B A to some weights, has others whole, and does nothing else.
struct AdapterConfig {
  std::string base;  // base_model_name_or_path; "" where there is none
  std::string peft_version;
  int64_t r = 0;
  double alpha = 0;
  bool use_rslora = false;
  bool has_targets = true;                        // false: it is of whole weights alone
  std::vector<std::string> target_parameters;     // where experts are packed
  std::vector<std::string> modules_to_save = {};  // trained whole; each names modules by how they end
  std::vector<std::pair<AdapterPattern, int64_t>> rank_pattern = {};
  std::vector<std::pair<AdapterPattern, double>> alpha_pattern = {};

  // Of a module or parameter, by the name that it has in PEFT: the first pattern that matches decides.
  int64_t rank_of(std::string_view name) const;
  double scaling_of(std::string_view name) const;
  // Whether target_parameters has a parameter of this name, alone or at the end of a longer one.
  bool targets_parameter(std::string_view name) const;
  // peft_version's numbers, where it begins with three.
  std::optional<std::array<int, 3>> version() const;
};

// Parses the text of an adapter_config.json. Nothing in it is trusted. Throws UserError for what is malformed, and by
// name for what is no plain LoRA: other kinds of adapter, and what changes more of the model than scaling * B A.
AdapterConfig parse_adapter_config(std::string_view text, const std::string& where);

// Reads FOLDER/adapter_config.json. Throws UserError where the folder is no adapter's.
AdapterConfig read_adapter_config(const std::string& folder);

// What an adapter_config.json that is written says.
struct NewAdapterConfig {
  std::string base;  // "": null
  int64_t r = 0;
  double alpha = 0;  // every pair's scaling is alpha / r
  std::vector<std::string> target_modules;
  std::vector<std::string> modules_to_save = {};  // empty: null
};
std::string format_adapter_config(const NewAdapterConfig& config);

}  // namespace mixtune
