#include "checkpoint/adapter_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "base/contained.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_value.h"
#include "base/log.h"

namespace mixtune {

namespace {

using ConfigJson = nlohmann::ordered_json;

constexpr const char* kNoPlainLora = "use an adapter of plain LoRA, or merge this one with PEFT";
constexpr int64_t kMostRank = 1 << 16;
constexpr std::string_view kNoTarget = "dummy-target-modules";  // what PEFT asks for where a model is to have no pairs

// A key that must say nothing: null, false, or an empty list or object.
struct RefusedKey {
  std::string_view key, what;
};

constexpr auto kRefusedKeys = std::to_array<RefusedKey>({
    {"use_dora", "is a DoRA adapter"},
    {"alora_invocation_tokens", "is an aLoRA adapter, which begins at its invocation tokens"},
    {"use_bdlora", "is a BD-LoRA adapter"},
    {"use_qalora", "is a QALoRA adapter"},
    {"arrow_config", "routes between several adapters (Arrow)"},
    {"kasa_config", "is a KaSA adapter"},
    {"monteclora_config", "is a MonteCLoRA adapter"},
    {"velora_config", "is a VeLoRA adapter"},
    {"lora_bias", "has biases in its pairs"},
    {"fan_in_fan_out", "has its weights transposed"},
    {"layer_replication", "replicates layers of its base"},
    {"trainable_token_indices", "has trained rows of the embedding"},
});

// Keys that say how the adapter was trained, or where PEFT looks for modules: the tensors say what there is.
constexpr auto kOtherKeys = std::to_array<std::string_view>({"auto_mapping",
                                                             "base_model_name_or_path",
                                                             "bias",
                                                             "corda_config",
                                                             "ensure_weight_tying",
                                                             "eva_config",
                                                             "exclude_modules",
                                                             "inference_mode",
                                                             "init_lora_weights",
                                                             "layers_pattern",
                                                             "layers_to_transform",
                                                             "loftq_config",
                                                             "lora_alpha",
                                                             "lora_dropout",
                                                             "lora_ga_config",
                                                             "megatron_config",
                                                             "megatron_core",
                                                             "modules_to_save",
                                                             "alpha_pattern",
                                                             "peft_type",
                                                             "peft_version",
                                                             "qalora_group_size",
                                                             "r",
                                                             "rank_pattern",
                                                             "revision",
                                                             "runtime_config",
                                                             "target_modules",
                                                             "target_parameters",
                                                             "task_type",
                                                             "use_rslora"});

// Initialisations that leave the base as it was. The others take something off it, which the file does not have.
constexpr auto kPlainInits = std::to_array<std::string_view>({"gaussian", "eva", "orthogonal", "mica"});

class AdapterConfigReader {
 public:
  AdapterConfigReader(const ConfigJson& json, const std::string& where) : json_(json), where_(where) {}

  AdapterConfig read() const {
    check_kind();
    AdapterConfig config;
    config.base = text("base_model_name_or_path");
    config.peft_version = text("peft_version");
    config.r = rank(required("r"), "r");
    config.alpha = number(required("lora_alpha"), "lora_alpha");
    config.use_rslora = says_something("use_rslora");
    for (const auto& [key, value] : object("rank_pattern").items())
      config.rank_pattern.emplace_back(AdapterPattern(key, where_), rank(value, "rank_pattern"));
    for (const auto& [key, value] : object("alpha_pattern").items())
      config.alpha_pattern.emplace_back(AdapterPattern(key, where_), number(value, "alpha_pattern"));
    config.target_parameters = names("target_parameters");
    config.has_targets = has_targets("target_modules") || has_targets("target_parameters");
    config.modules_to_save = names("modules_to_save");
    return config;
  }

 private:
  [[noreturn]] void fail(std::string_view what, const char* mend = "get the adapter again, or save it anew") const {
    throw UserError(where_, what, mend);
  }

  const ConfigJson& at(std::string_view key) const {
    static const ConfigJson null;
    const auto found = json_.find(key);
    return found == json_.end() ? null : *found;
  }

  const ConfigJson& required(const char* key) const {
    if (at(key).is_null()) fail(fmt::format("has no '{}'", key));
    return at(key);
  }

  bool says_something(std::string_view key) const {
    const ConfigJson& value = at(key);
    return !(value.is_null() || value == false || (value.is_structured() && value.empty()));
  }

  bool has_targets(const char* key) const { return says_something(key) && at(key) != kNoTarget; }

  void check_kind() const {
    const std::string type = text("peft_type");
    if (type != "LORA")
      fail(type.empty() ? std::string("has no peft_type")
                        : fmt::format("is an adapter of peft_type {}, which mixtune does not read", printable(type)),
           kNoPlainLora);
    for (const auto& [key, what] : kRefusedKeys)
      if (says_something(key)) fail(fmt::format("{} ({}), which mixtune does not read", what, key), kNoPlainLora);
    if (const ConfigJson& bias = at("bias"); !bias.is_null() && bias != "none")
      fail("has trained biases (bias), which mixtune does not read", kNoPlainLora);
    check_init();
    for (const auto& [key, value] : json_.items()) check_known(key);
  }

  void check_init() const {
    const ConfigJson& init = at("init_lora_weights");
    if (init.is_null() || init.is_boolean()) return;
    const std::string name = text("init_lora_weights");
    if (std::ranges::find(kPlainInits, name) != kPlainInits.end()) return;
    fail(fmt::format("init_lora_weights is {}: the adapter belongs to a base that this changed", printable(name)),
         "convert it to plain LoRA with PEFT (save_pretrained's path_initial_model_for_weight_conversion)");
  }

  void check_known(const std::string& key) const {
    const auto same = [&](std::string_view known) {
      return known == key;
    };
    if (!says_something(key) || std::ranges::any_of(kOtherKeys, same)) return;
    if (key.starts_with("use_"))
      fail(fmt::format("{} is not known here, and may change what the adapter does", printable(key)), kNoPlainLora);
    log_warning("{}: '{}' is not known here, and ignored", where_, printable(key));
  }

  std::string text(const char* key) const {
    const ConfigJson& value = at(key);
    if (value.is_null()) return "";
    if (!value.is_string()) fail(fmt::format("{} is no text", key));
    return value.get<std::string>();
  }

  std::vector<std::string> names(const char* key) const {
    const ConfigJson& list = at(key);
    std::vector<std::string> names;
    if (list.is_null()) return names;
    if (!list.is_array()) fail(fmt::format("{} is no list of names", key));
    for (const ConfigJson& name : list) {
      if (!name.is_string()) fail(fmt::format("{} is no list of names", key));
      names.push_back(name.get<std::string>());
    }
    return names;
  }

  const ConfigJson& object(const char* key) const {
    static const ConfigJson empty = ConfigJson::object();
    const ConfigJson& value = at(key);
    if (value.is_null()) return empty;
    if (!value.is_object()) fail(fmt::format("{} is no object", key));
    return value;
  }

  int64_t rank(const ConfigJson& value, const char* key) const {
    const double rank = number(value, key);
    if (!(rank >= 1 && rank <= static_cast<double>(kMostRank) && rank == std::floor(rank)))
      fail(fmt::format("{}: a rank is a whole number from 1 to {}", key, kMostRank));
    return static_cast<int64_t>(rank);
  }

  double number(const ConfigJson& value, const char* key) const {
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail(fmt::format("{} has what is no number", key));
    return value.get<double>();
  }

  const ConfigJson& json_;
  const std::string& where_;
};

// 16 in place of 16.0: as configurations have it.
ConfigJson whole_if_it_is(double x) {
  const bool is_whole = x == std::floor(x) && std::abs(x) < 1e15;
  return is_whole ? ConfigJson(static_cast<int64_t>(x)) : ConfigJson(x);
}

template <class T>
T first_match(const std::vector<std::pair<AdapterPattern, T>>& patterns, std::string_view name, T otherwise) {
  const auto found = std::ranges::find_if(patterns, [&](const auto& pattern) { return pattern.first.matches(name); });
  return found == patterns.end() ? otherwise : found->second;
}

}  // namespace

int64_t AdapterConfig::rank_of(std::string_view name) const {
  return first_match(rank_pattern, name, r);
}

double AdapterConfig::scaling_of(std::string_view name) const {
  const auto rank = static_cast<double>(rank_of(name));
  return first_match(alpha_pattern, name, alpha) / (use_rslora ? std::sqrt(rank) : rank);
}

bool AdapterConfig::targets_parameter(std::string_view name) const {
  return std::ranges::any_of(target_parameters, [&](std::string_view target) {
    return target.ends_with(name) && (target.size() == name.size() || target[target.size() - name.size() - 1] == '.');
  });
}

std::optional<std::array<int, 3>> AdapterConfig::version() const {
  std::array<int, 3> numbers{};
  const char *at = peft_version.data(), *const end = at + peft_version.size();
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0 && (at == end || *at++ != '.')) return {};
    const auto [next, error] = std::from_chars(at, end, numbers[i]);
    if (error != std::errc()) return {};
    at = next;
  }
  return numbers;
}

AdapterConfig parse_adapter_config(std::string_view text, const std::string& where) {
  constexpr int kMaxDepth = 16;
  const ConfigJson json = parse_ordered_json_object(text, where, "get the adapter again", kMaxDepth);
  return AdapterConfigReader(json, where).read();
}

AdapterConfig read_adapter_config(const std::string& folder) {
  constexpr size_t kMaxBytes = 1 << 20;
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error))
    throw UserError(printable_path(folder), "there is no such adapter folder", "check the path");
  if (!std::filesystem::exists(folder + "/" + kAdapterConfigFile, error))
    throw UserError(printable_path(folder), fmt::format("is no adapter's folder: it has no {}", kAdapterConfigFile),
                    "give a folder that PEFT's save_pretrained wrote");
  const std::string path = path_within(folder, kAdapterConfigFile);
  return parse_adapter_config(read_small_file(path, kMaxBytes, "give an adapter's folder"), printable_path(path));
}

std::string format_adapter_config(const NewAdapterConfig& config) {
  const ConfigJson json = {
      {"alpha_pattern", ConfigJson::object()},
      {"base_model_name_or_path", config.base.empty() ? ConfigJson() : ConfigJson(config.base)},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"layers_pattern", nullptr},
      {"layers_to_transform", nullptr},
      {"lora_alpha", whole_if_it_is(config.alpha)},
      {"lora_dropout", 0.0},
      {"modules_to_save", config.modules_to_save.empty() ? ConfigJson() : ConfigJson(config.modules_to_save)},
      {"peft_type", "LORA"},
      {"r", config.r},
      {"rank_pattern", ConfigJson::object()},
      {"target_modules", config.target_modules},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", false},
      {"use_rslora", false}};
  return json.dump(2) + "\n";
}

}  // namespace mixtune
