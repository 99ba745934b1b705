#include "config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/duration.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/size.h"
#include "config/check_data.h"
#include "config/check_evaluations.h"
#include "config/datasets.h"
#include "config/keys.h"
#include "config/lr_groups.h"
#include "config/router_losses.h"
#include "config/schedule_kwargs.h"
#include "config/yaml.h"

namespace mixtune {

namespace {

constexpr size_t kMaxFile = 1 << 20;

constexpr std::string_view kIsData = "is data, not a YAML file of keys";
constexpr std::string_view kOncePerFile =
    "to train on it, give --train_file once for each file, or a pattern in quotes";

// Whether this is JSONL, lines of objects, of which a config could be only the first, or an array of objects.
bool holds_records(std::string_view text) {
  if (text.starts_with('[')) return text.substr(1).find_first_not_of("\n\r\t ") == text.find('{') - 1;
  const std::string_view first = text.substr(0, text.find('\n'));
  const std::string_view rest = text.substr(first.size());
  const size_t end = first.find_last_not_of(" \r\t");
  return first.starts_with('{') && first[end] == '}' && rest.find_first_not_of("\n\r\t ") != rest.npos;
}

struct Setting {
  Value value;
  std::string where;  // file:line: key, or --key
};
using Settings = std::map<std::string, Setting, std::less<>>;

Value datasets_value(const YamlEntry& entry, const std::string& file, const std::string& where) {
  if (entry.mappings.empty()) return parse_dataset_words(entry.values, where);
  if (!entry.values.empty())
    throw UserError(where, fmt::format("'{}' is no entry with a path", printable(entry.values.front())),
                    "write '- path: data.jsonl'");
  return parse_datasets(entry.mappings, file);
}

Value list_value(const Key& key, const YamlEntry& entry, const std::string& file, const std::string& where) {
  if (key.type == KeyType::kMapping) throw UserError(where, "takes a mapping, not a list", "write {name: value, ...}");
  const bool datasets = key.type == KeyType::kDatasets;
  if (key.type != KeyType::kTextList && key.type != KeyType::kNamedFiles && !datasets)
    throw UserError(where, "takes one value, not a list", "write one value");
  if (entry.values.empty() && entry.mappings.empty())
    throw UserError(where, "the list is empty", "give at least one item");
  if (datasets) return datasets_value(entry, file, where);
  std::vector<std::string> items;
  Key item = key;
  item.type = KeyType::kTextList;  // a file may be called '{x}'
  for (const std::string& text : entry.values) {
    const Value value = parse_value(item, text, where);
    if (std::holds_alternative<std::monostate>(value))
      throw UserError(where, "an item of the list is empty", "remove it");
    items.push_back(std::get<std::vector<std::string>>(value).front());
  }
  return items;
}

// The line of what a config cannot have in the place of this key's value, or 0.
int nested_line(const Key& key, const YamlEntry& entry) {
  const bool takes_mappings = key.type == KeyType::kMapping || (key.type == KeyType::kDatasets && entry.is_list) ||
                              (key.type == KeyType::kNamedFiles && !entry.is_list);
  return takes_mappings ? entry.left_out_line : entry.nested_line;
}

Value value_of(const Key& key, const YamlEntry& entry, const std::string& file, const std::string& where) {
  if (entry.is_list) return list_value(key, entry, file, where);
  if (!entry.mappings.empty()) return parse_mapping(key, entry.mappings.front(), where);
  return parse_value(key, entry.values.front(), where);
}

constexpr std::string_view kNested = "; nested values are not allowed: see docs/coming-from.md";

void check_known(const std::vector<YamlEntry>& entries, const std::string& file) {
  std::vector<UserError> unknown;
  for (const YamlEntry& entry : entries) {
    if (find_key(entry.key) != nullptr) continue;
    unknown.push_back(
        unknown_key(fmt::format("{}:{}", file, entry.line), entry.key, entry.nested_line > 0 ? kNested : ""));
  }
  if (!unknown.empty()) throw_unknown(file, unknown);
}

Settings file_settings(std::string_view text, std::string_view file) {
  const std::string shown = printable(file, 200);
  const std::vector<YamlEntry> entries = parse_flat_yaml(text, shown);
  check_known(entries, shown);
  Settings settings;
  for (const YamlEntry& entry : entries) {
    const Key* key = find_key(entry.key);
    const std::string where = fmt::format("{}:{}: {}", shown, entry.line, entry.key);
    if (const auto other = settings.find(key->name); other != settings.end())
      throw UserError(where, fmt::format("there is another name of it too: {}", other->second.where),
                      "keep one of the two");
    if (const int line = nested_line(*key, entry); line > 0)
      throw UserError(fmt::format("{}:{}: {}", shown, line, entry.key), "nested values are not allowed",
                      "write one 'key: value' a line, and close every bracket");
    settings[std::string(key->name)] = {value_of(*key, entry, shown, where), where};
  }
  if (settings.empty()) throw UserError(shown, "is empty", "write one 'key: value' a line");
  return settings;
}

// Adds the items of a list to a list of the same kind; false where one of them is none.
template <class Item>
bool append_items(Value& list, const Value& more) {
  auto* items = std::get_if<std::vector<Item>>(&list);
  const auto* others = std::get_if<std::vector<Item>>(&more);
  if (items == nullptr || others == nullptr) return false;
  items->insert(items->end(), others->begin(), others->end());
  return true;
}

Settings flag_settings(const Overrides& overrides) {
  std::vector<UserError> unknown;
  for (const auto& [name, text] : overrides)
    if (find_key(name) == nullptr) unknown.push_back(unknown_key("command line", name));
  if (!unknown.empty()) throw_unknown("command line", unknown);
  Settings settings;
  for (const auto& [name, text] : overrides) {
    const Key* key = find_key(name);
    const std::string where = "--" + printable(name);
    Value value = parse_value(*key, text, where);
    const auto [known, is_new] = settings.try_emplace(std::string(key->name), Setting{value, where});
    if (is_new) continue;
    if (!append_items<std::string>(known->second.value, value) && !append_items<Dataset>(known->second.value, value))
      throw UserError(where, "is given twice", "give it once");
  }
  return settings;
}

Settings other_settings(std::span<const OtherSetting> others) {
  Settings settings;
  for (const auto& [key, value, where] : others) settings[key] = {parse_value(*find_key(key), value, where), where};
  return settings;
}

void check_lengths(const Config& config) {
  constexpr int64_t kMaxTokens = 1 << 30;  // rows and offsets of a batch are 32-bit
  const int64_t rows = config.batch.per_device_train_batch_size;
  if (rows * config.data.max_seq_length > kMaxTokens)
    throw UserError(
        config.where("max_seq_length"),
        fmt::format("{} rows of {} tokens are too many for one micro-batch", rows, config.data.max_seq_length),
        "lower it or per_device_train_batch_size");
  if (config.batch.max_steps == 0)
    throw UserError(config.where("max_steps"), "there is nothing to train in 0 steps",
                    "set -1 to go by num_train_epochs, or at least 1");
}

// Has `parse` throw what is wrong with the text of a key, with the key's place.
template <class F>
void check_text(const Config& config, const char* key, F&& parse) {
  try {
    parse();
  } catch (const UserError& error) {
    throw UserError(config.where(key), error.what(), "");
  }
}

void check_texts(const Config& config) {
  const OutputSettings& o = config.output;
  check_text(config, "max_shard_size", [&] { parse_size(o.max_shard_size); });
  check_text(config, "checkpoint_host_memory", [&] {
    if (o.checkpoint_host_memory != "auto") parse_size(o.checkpoint_host_memory);
  });
  check_text(config, "time_limit", [&] {
    if (!o.time_limit.empty()) parse_duration(o.time_limit);
  });
}

void warn_of_overruled(const Config& config) {
  const OptimizerSettings& o = config.optimizer;
  if (o.warmup_steps > 0 && o.warmup_ratio > 0) log_warning("warmup_steps overrides warmup_ratio");
  if (o.lr_scheduler_type == Schedule::kConstant && (o.warmup_steps > 0 || o.warmup_ratio > 0))
    log_warning("{}: no effect with lr_scheduler_type constant; use constant_with_warmup",
                config.where(o.warmup_steps > 0 ? "warmup_steps" : "warmup_ratio"));
}

void check_capacity(const Config& config) {
  if (config.router.moe_pad_expert_input_to_capacity && !config.router.moe_expert_capacity_factor)
    throw UserError(config.where("moe_pad_expert_input_to_capacity"), "there is no capacity to pad to",
                    "set moe_expert_capacity_factor, or leave it out");
}

// In the order of the table, which is that of precedence where one key sets another's field.
Config build(const Settings& settings) {
  Config config;
  for (const Key& key : keys()) {
    const auto setting = settings.find(key.name);
    if (setting == settings.end()) continue;
    key.set(config, setting->second.value);
    config.origins.emplace(key.name, setting->second.where);
  }
  check_data(config);
  check_lengths(config);
  check_texts(config);
  check_evaluations(config);
  check_lr_groups(config);
  check_router_losses(config);
  check_capacity(config);
  check_schedule_kwargs(config);
  warn_of_overruled(config);
  return config;
}

}  // namespace

std::string Config::where(std::string_view key) const {
  const auto origin = origins.find(key);
  return origin == origins.end() ? std::string(key) : origin->second;
}

Config parse_config(std::string_view text, std::string_view where, const Overrides& overrides,
                    std::span<const OtherSetting> others) {
  Settings settings = flag_settings(overrides);
  settings.merge(file_settings(text, where));
  settings.merge(other_settings(others));
  return build(settings);
}

void check_config_name(std::string_view path) {
  constexpr std::array kData = {".jsonl", ".ndjson", ".gz", ".zst", ".csv", ".tsv", ".parquet", ".arrow"};
  if (std::ranges::any_of(kData, [&](const char* end) { return path.ends_with(end); }))
    throw UserError(printable(path, 200), kIsData, kOncePerFile);
}

Config load_config(const std::optional<std::string>& path, const Overrides& overrides,
                   std::span<const OtherSetting> others) {
  if (!path) {
    Settings settings = flag_settings(overrides);
    settings.merge(other_settings(others));
    return build(settings);
  }
  check_config_name(*path);
  const std::string text = read_small_file(*path, kMaxFile, "give a YAML file of mixtune's keys");
  if (holds_records(text)) throw UserError(printable(*path, 200), kIsData, kOncePerFile);
  Config config = parse_config(text, *path, overrides, others);
  config.file = *path;
  return config;
}

std::string print_config(const Config& config) {
  std::string out;
  for (const Key& key : keys()) {
    out += fmt::format("{}: {}\n", key.name, format_value(key, key.get(config)));
  }
  return out;
}

void resolve_global_batch_size(Config& config, int64_t ranks) {
  BatchSettings& batch = config.batch;
  if (batch.global_batch_size == 0) return;
  const int64_t rows = batch.per_device_train_batch_size * ranks, steps = batch.global_batch_size / rows;
  const std::string arithmetic = fmt::format("per_device_train_batch_size {} x {} ranks = {} rows",
                                             batch.per_device_train_batch_size, ranks, rows);
  if (steps * rows != batch.global_batch_size)
    throw UserError(config.where("global_batch_size"),
                    fmt::format("{} is no multiple of {}", batch.global_batch_size, arithmetic),
                    steps == 0 ? fmt::format("set it to {}, or to a multiple of that", rows)
                               : fmt::format("set it to {} or {}", steps * rows, (steps + 1) * rows));
  if (config.origins.contains("gradient_accumulation_steps") && batch.gradient_accumulation_steps != steps)
    throw UserError(config.where("global_batch_size"),
                    fmt::format("{} is {} times {}, but gradient_accumulation_steps is {}", batch.global_batch_size,
                                steps, arithmetic, batch.gradient_accumulation_steps),
                    "give only one of them");
  batch.gradient_accumulation_steps = steps;
}

void require_keys(const Config& config, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (name == "train_file" && !config.data.datasets.empty()) continue;  // which are in its place
    const Key* key = find_key(name);
    MT_CHECK(key != nullptr);
    if (std::holds_alternative<std::monostate>(key->get(config)))
      throw UserError(config.where(name), "is required but not set",
                      fmt::format("add '{}: ...' to the config or --{} to the command", name, name));
  }
}

}  // namespace mixtune
