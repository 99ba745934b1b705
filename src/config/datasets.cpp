#include "config/datasets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <system_error>

#include "base/error.h"
#include "base/json_value.h"
#include "base/suggest.h"
#include "config/foreign.h"
#include "config/keys.h"

namespace mixtune {

namespace {

constexpr std::array<std::string_view, 6> kEntryKeys = {"path", "weight", "format", "template", "split", "max_samples"};

// What axolotl's entries have.
struct ForeignEntryKey {
  std::string_view name, mend;
};
constexpr std::array kForeign = {
    ForeignEntryKey{"type", "use 'format'"},
    ForeignEntryKey{"dataset_format", "use 'format'"},
    ForeignEntryKey{"chat_template", "use 'template'"},
    ForeignEntryKey{"data_files", "use 'path': a file, a pattern or a list of them"},
    ForeignEntryKey{"files", "use 'path': a file, a pattern or a list of them"},
    ForeignEntryKey{"ds_type", "not needed: a file's content says what it is"},
    ForeignEntryKey{"name", "not supported: files are local; export that part of the data set with 'to_json'"},
    ForeignEntryKey{"train_on_inputs", "use the key 'train_on_prompt', which is for all data sets"},
};

constexpr double kMaxWeight = 1e12;
constexpr double kMaxSamples = 1e12;

double parse_weight(std::string_view text, std::string_view where) {
  static const Key key = item_key(KeyType::kNumber, {0, kMaxWeight, Bounds::kOpenLow});
  return std::get<double>(parse_value(key, text, where));
}

int64_t parse_count(std::string_view text, std::string_view where) {
  static const Key key = item_key(KeyType::kInteger, {1, kMaxSamples});
  return std::get<int64_t>(parse_value(key, text, where));
}

std::string parse_word(std::string_view text, std::string_view where) {
  static const Key key = item_key(KeyType::kText);
  return std::get<std::string>(parse_value(key, text, where));
}

std::string parse_path(const std::string& text, std::string_view where) {
  if (text == "null" || text == "~") throw UserError(where, "a path is empty", "give one or remove it");
  return parse_word(text, where);
}

// A choice of an entry has the values of a key of the run.
template <class Choice>
Choice parse_choice(std::string_view key_name, Choice DataSettings::*field, std::string_view text,
                    std::string_view where) {
  const Key* key = find_key(key_name);
  Config config;
  key->set(config, parse_value(*key, text, where));
  return config.data.*field;
}

template <class Choice>
std::string name_of(std::string_view key_name, Choice DataSettings::*field, Choice choice) {
  Config config;
  config.data.*field = choice;
  return std::get<std::string>(find_key(key_name)->get(config));
}

bool is_null(const YamlEntry& entry) {
  return !entry.is_list && (entry.values.front() == "null" || entry.values.front() == "~");
}

void check_entry_key(const YamlEntry& entry, std::string_view where) {
  if (std::ranges::find(kEntryKeys, entry.key) != kEntryKeys.end()) return;
  const auto foreign = std::ranges::find(kForeign, entry.key, &ForeignEntryKey::name);
  const std::string near = nearest_name(std::string_view(entry.key).substr(0, 100), kEntryKeys);
  throw UserError(where, fmt::format("unknown key '{}' in an entry", printable(entry.key)),
                  foreign != kForeign.end() ? std::string(foreign->mend)
                  : near.empty()            ? fmt::format("an entry has: {}", fmt::join(kEntryKeys, ", "))
                                            : fmt::format("did you mean '{}'?", near));
}

void set(Dataset& dataset, const YamlEntry& entry, std::string_view file) {
  const std::string place = fmt::format("{}:{}: datasets", file, entry.line);
  check_entry_key(entry, place);
  const std::string where = fmt::format("{}: {}", place, entry.key);
  if (entry.is_list && entry.key != "path") throw UserError(where, "takes one value, not a list", "write one value");
  if (is_null(entry)) return;
  if (entry.values.empty()) throw UserError(where, "the list is empty", "give at least one item");
  const std::string& value = entry.values.front();
  if (entry.key == "path")
    for (const std::string& path : entry.values) dataset.path.push_back(parse_path(path, where));
  else if (entry.key == "weight")
    dataset.weight = parse_weight(value, where);
  else if (entry.key == "format")
    dataset.format = parse_choice("dataset_format", &DataSettings::dataset_format, value, where);
  else if (entry.key == "template")
    dataset.chat_template = parse_choice("chat_template", &DataSettings::chat_template, value, where);
  else if (entry.key == "split")
    dataset.split = parse_word(value, where);
  else
    dataset.max_samples = parse_count(value, where);
}

bool is_number(const std::string& word) {
  double number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  return error != std::errc::invalid_argument && end == word.data() + word.size();
}

// How many of every second word, from `first` on, are numbers.
size_t numbers_of(std::span<const std::string> words, size_t first) {
  size_t count = 0;
  for (size_t i = first; i < words.size(); i += 2) count += is_number(words[i]);
  return count;
}

}  // namespace

std::vector<Dataset> parse_datasets(std::span<const YamlMapping> entries, std::string_view file) {
  std::vector<Dataset> datasets;
  for (const YamlMapping& mapping : entries) {
    Dataset& dataset = datasets.emplace_back();
    for (const YamlEntry& entry : mapping.entries) set(dataset, entry, file);
    if (dataset.path.empty())
      throw UserError(fmt::format("{}:{}: datasets", file, mapping.line), "an entry has no path",
                      "name its files: 'path: data.jsonl'");
  }
  return datasets;
}

std::vector<Dataset> parse_dataset_words(std::span<const std::string> words, std::string_view where) {
  if (words.empty()) throw UserError(where, "the value is empty", "write WEIGHT PATH WEIGHT PATH ..., or paths");
  const size_t weights = numbers_of(words, 0), pairs = words.size() / 2;
  const bool weighted = weights > 0 && weights == pairs && words.size() == 2 * pairs;
  if (weights > 0 && !weighted)
    throw UserError(where, fmt::format("{} of its words are weights, for {} words in all", weights, words.size()),
                    "write WEIGHT PATH WEIGHT PATH ..., or paths alone");
  if (!weighted && pairs > 0 && words.size() == 2 * pairs && numbers_of(words, 1) == pairs)
    throw UserError(where, "a weight stands before its path, not after it", "write WEIGHT PATH WEIGHT PATH ...");
  std::vector<Dataset> datasets;
  for (size_t i = 0; i < words.size(); i += weighted ? 2 : 1) {
    Dataset& dataset = datasets.emplace_back();
    if (weighted) dataset.weight = parse_weight(words[i], where);
    dataset.path.push_back(parse_path(words[weighted ? i + 1 : i], where));
  }
  return datasets;
}

std::vector<Dataset> parse_dataset_words(std::string_view text, std::string_view where) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return parse_dataset_words(words, where);
}

void check_weights_of(std::span<const Dataset> datasets, std::string_view where) {
  const auto weighted = std::ranges::count_if(datasets, [](const Dataset& dataset) { return dataset.weight > 0; });
  if (weighted > 0 && static_cast<size_t>(weighted) < datasets.size())
    throw UserError(where, fmt::format("{} of {} entries have a weight", weighted, datasets.size()),
                    "give each of them one, or none");
}

std::string format_datasets(std::span<const Dataset> datasets) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Dataset& dataset : datasets) {
    nlohmann::ordered_json& entry = list.emplace_back();
    entry["path"] = dataset.path;
    if (dataset.path.size() == 1) entry["path"] = dataset.path.front();
    if (dataset.weight > 0) entry["weight"] = dataset.weight;
    if (dataset.format != DatasetFormat::kAuto)
      entry["format"] = name_of("dataset_format", &DataSettings::dataset_format, dataset.format);
    if (dataset.chat_template != ChatTemplateName::kAuto)
      entry["template"] = name_of("chat_template", &DataSettings::chat_template, dataset.chat_template);
    if (!dataset.split.empty()) entry["split"] = dataset.split;
    if (dataset.max_samples > 0) entry["max_samples"] = dataset.max_samples;
  }
  return list.dump();
}

}  // namespace mixtune
