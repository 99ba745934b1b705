#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/json_value.h"
#include "base/suggest.h"
#include "config/datasets.h"
#include "config/foreign.h"
#include "config/keys.h"

namespace mixtune {

namespace {

constexpr size_t kMaxText = 4096;  // PATH_MAX
constexpr std::array<std::string_view, 4> kTrue = {"true", "yes", "on", "1"};
constexpr std::array<std::string_view, 4> kFalse = {"false", "no", "off", "0"};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

template <class List>
bool contains(const List& list, std::string_view text) {
  return std::ranges::find(list, text) != std::ranges::end(list);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Decimal, as YAML 1.1 and Python write it: an underscore may stand between two digits, a plus in front.
std::optional<double> parse_decimal(std::string_view text) {
  if (text.size() > 1 && text[0] == '+') text.remove_prefix(1);
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool separator =
        text[i] == '_' && i > 0 && i + 1 < text.size() && is_digit(text[i - 1]) && is_digit(text[i + 1]);
    if (!separator) digits += text[i];
  }
  double number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (end != digits.data() + digits.size() || error == std::errc::invalid_argument) return std::nullopt;
  if (error == std::errc::result_out_of_range) return digits.find("e-") == std::string::npos ? HUGE_VAL : 0.0;
  return number;
}

std::string describe(const Bounds& bounds) {
  if (bounds.ends == Bounds::kOpenLow) return fmt::format("above {} and at most {}", bounds.low, bounds.high);
  if (bounds.ends == Bounds::kOpenHigh) return fmt::format("at least {} and below {}", bounds.low, bounds.high);
  return fmt::format("from {} to {}", bounds.low, bounds.high);
}

bool within(const Bounds& bounds, double number) {  // false for a NaN
  const bool low = bounds.ends == Bounds::kOpenLow ? number > bounds.low : number >= bounds.low;
  const bool high = bounds.ends == Bounds::kOpenHigh ? number < bounds.high : number <= bounds.high;
  return low && high;
}

double parse_number(const Key& key, std::string_view text, std::string_view where) {
  const std::optional<double> number = parse_decimal(text);
  if (!number)
    throw UserError(where, fmt::format("'{}' is not a number", printable(text)),
                    fmt::format("write one {}", describe(key.bounds)));
  if (!within(key.bounds, *number))
    throw UserError(where, fmt::format("{} is out of range", printable(text)),
                    fmt::format("write a number {}", describe(key.bounds)));
  const bool share = key.type == KeyType::kIntegerOrShare && *number < 1;
  if (key.type != KeyType::kNumber && !share && *number != std::floor(*number))
    throw UserError(where, fmt::format("{} is not a whole number", printable(text)), "write it without a fraction");
  return *number;
}

bool parse_boolean(std::string_view text, std::string_view where) {
  if (!is_boolean(text))
    throw UserError(where, fmt::format("'{}' is neither true nor false", printable(text)), "write true or false");
  return contains(kTrue, lower(text));
}

std::string parse_choice(const Key& key, std::string_view text, std::string_view where) {
  if (!contains(key.choices, text)) {
    const ForeignValue* foreign = find_foreign_value(key.name, text);
    const std::string near = foreign ? "" : nearest_name(text.substr(0, kMaxText), key.choices);
    throw UserError(where, fmt::format("unknown value '{}'", printable(text)),
                    foreign        ? hint(*foreign)
                    : near.empty() ? fmt::format("use one of: {}", fmt::join(key.choices, ", "))
                                   : fmt::format("did you mean '{}'?", near));
  }
  return std::string(text);
}

std::string format_mapping(const Mapping& mapping) {
  std::vector<std::string> items;
  for (const auto& [name, text] : mapping)
    items.push_back(
        fmt::format("{}: {}", nlohmann::json(name).dump(), parse_decimal(text) ? text : nlohmann::json(text).dump()));
  return fmt::format("{{{}}}", fmt::join(items, ", "));
}

std::string parse_text(std::string_view text, std::string_view where) {
  if (text.empty()) throw UserError(where, "the value is empty", "give one or remove the key");
  if (text.size() > kMaxText)
    throw UserError(where, fmt::format("the value has {} bytes", text.size()),
                    fmt::format("at most {} are allowed", kMaxText));
  if (std::ranges::any_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }))
    throw UserError(where, fmt::format("'{}' holds a control character", printable(text)), "remove it");
  return std::string(text);
}

// "{name: value, ...}", as YAML and JSON spell it in a line.
Mapping parse_mapping_text(const Key& key, std::string_view text, std::string_view where) {
  if (!text.starts_with('{'))
    throw UserError(where, fmt::format("'{}' is no mapping", printable(text)), "write {name: value, ...}");
  const std::vector<YamlEntry> entries = parse_flat_yaml(text, where);
  const auto nested = std::ranges::find_if(entries, [](const YamlEntry& entry) { return entry.nested_line > 0; });
  if (nested != entries.end())
    throw UserError(fmt::format("{}: {}", where, printable(nested->key)), "nested values are not allowed",
                    "write one value");
  return parse_mapping(key, {.line = 1, .entries = entries}, where);
}

}  // namespace

bool is_boolean(std::string_view text) {
  const std::string word = lower(text.substr(0, 8));
  return contains(kTrue, word) || contains(kFalse, word);
}

Key item_key(KeyType type, Bounds bounds, std::vector<std::string_view> choices) {
  return {.name = "",
          .group = "",
          .help = "",
          .type = type,
          .nullable = false,
          .bounds = bounds,
          .choices = std::move(choices),
          .set = {},
          .get = {}};
}

Mapping parse_mapping(const Key& key, const YamlMapping& mapping, std::string_view where) {
  Mapping values;
  for (const YamlEntry& entry : mapping.entries) {
    const std::string place = fmt::format("{}: {}", where, printable(entry.key));
    if (entry.is_list) throw UserError(place, "takes one value, not a list", "write one value");
    const std::string& text = entry.values.front();
    if (text == "null" || text == "~") {
      if (key.type == KeyType::kNamedFiles) throw UserError(place, "has no file", "name it, or remove the line");
      continue;
    }
    const std::optional<double> number = key.type == KeyType::kMapping ? parse_decimal(text) : std::nullopt;
    values[entry.key] = number && std::isfinite(*number) ? fmt::format("{}", *number) : parse_text(text, place);
  }
  return values;
}

Value parse_value(const Key& key, std::string_view text, std::string_view where) {
  if (key.nullable && (text == "null" || text == "~")) return {};
  switch (key.type) {
    case KeyType::kBoolean:
      return parse_boolean(text, where);
    case KeyType::kInteger:
      return static_cast<int64_t>(parse_number(key, text, where));
    case KeyType::kNumber:
    case KeyType::kIntegerOrShare:
      return parse_number(key, text, where);
    case KeyType::kChoice:
      return parse_choice(key, text, where);
    case KeyType::kText:
      return parse_text(text, where);
    case KeyType::kTextList:
      return std::vector{parse_text(text, where)};
    case KeyType::kNamedFiles:
      if (text.starts_with('{')) return parse_mapping_text(key, text, where);
      return std::vector{parse_text(text, where)};
    case KeyType::kDatasets:
      return parse_dataset_words(text, where);
    case KeyType::kMapping:
      return parse_mapping_text(key, text, where);
  }
  MT_CHECK(false);
}

std::string format_value(const Value& value) {
  struct Formatter {
    std::string operator()(std::monostate) const { return "null"; }
    std::string operator()(bool x) const { return x ? "true" : "false"; }
    std::string operator()(int64_t x) const { return fmt::format("{}", x); }
    std::string operator()(double x) const { return fmt::format("{}", x); }
    std::string operator()(const std::string& x) const { return nlohmann::json(x).dump(); }
    std::string operator()(const std::vector<std::string>& x) const { return nlohmann::json(x).dump(); }
    std::string operator()(const std::vector<Dataset>& x) const { return format_datasets(x); }
    std::string operator()(const Mapping& x) const { return format_mapping(x); }
  };
  return std::visit(Formatter{}, value);
}

std::string format_value(const Key& key, const Value& value) {
  const auto* name = std::get_if<std::string>(&value);
  return key.type == KeyType::kChoice && name != nullptr ? *name : format_value(value);
}

std::string type_name(const Key& key) {
  switch (key.type) {
    case KeyType::kBoolean:
      return "true|false";
    case KeyType::kInteger:
      return "INTEGER";
    case KeyType::kNumber:
    case KeyType::kIntegerOrShare:
      return "NUMBER";
    case KeyType::kChoice:
      return fmt::format("{}", fmt::join(key.choices, "|"));
    case KeyType::kText:
      return "TEXT";
    case KeyType::kNamedFiles:
      return "FILE|{NAME: FILE, ...}";
    case KeyType::kTextList:
      return key.name.ends_with("_file") ? "FILE" : "NAME";
    case KeyType::kDatasets:
      return "WEIGHT FILE ...";
    case KeyType::kMapping:
      return "{NAME: VALUE, ...}";
  }
  MT_CHECK(false);
}

}  // namespace mixtune
