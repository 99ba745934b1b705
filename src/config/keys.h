// The table of configuration keys: the one place that says what a key is called, where it lives, what it may be and
// what it means. Reading, checking, printing, --help and the table in docs/configuration.md all follow it.
#pragma once

#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"
#include "config/config.h"
#include "config/yaml.h"

namespace mixtune {

// `null` (monostate) is allowed only where Key::nullable says so. A choice is held by its text.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<std::string>,
                           std::vector<Dataset>, Mapping>;

enum class KeyType {
  kBoolean,
  kInteger,
  kNumber,
  kIntegerOrShare,
  kChoice,
  kText,
  kTextList,
  kNamedFiles,
  kDatasets,
  kMapping
};  // share: in (0, 1); named files: a list of texts, or a mapping

struct Bounds {
  double low = 0;
  double high = 0;
  enum { kClosed, kOpenLow, kOpenHigh } ends = kClosed;
};

struct Key {
  std::string_view name;
  std::string_view group;  // a heading of --help and of the docs
  std::string_view help;
  KeyType type;
  bool nullable;                                   // null is a value of its own: "none"
  Bounds bounds;                                   // of an integer or a number
  std::vector<std::string_view> choices;           // of a choice
  std::function<void(Config&, const Value&)> set;  // takes what parse_value gives
  std::function<Value(const Config&)> get;
  std::string_view alias = {};  // another name that is taken for it; "": there is none
};

std::span<const Key> keys();                 // in the order of the docs, groups together
const Key* find_key(std::string_view name);  // by its name or its alias
// Whether a key has another value than by default. Where it was set to that, it says nothing: a run writes all keys.
bool is_changed(const Config& config, std::string_view name);

std::vector<std::string> key_names();

// "unknown key 'x'", with what mixtune has in the place of a key that other tools have, or the nearest key, and `more`.
UserError unknown_key(std::string_view where, std::string_view name, std::string_view more = "");

// Throws all of `errors`, one or more, about unknown keys in `where`, a file or the command line: a line for each.
[[noreturn]] void throw_unknown(std::string_view where, const std::vector<UserError>& errors);

// The value that `text` spells for `key`, checked against its type and bounds. `where` names its place in messages.
Value parse_value(const Key& key, std::string_view text, std::string_view where);
// Whether `text` spells a boolean: true/false, yes/no, on/off, 1/0 in any case.
bool is_boolean(std::string_view text);

// A key that no table has, by which parse_value checks an item of a list or of a mapping.
Key item_key(KeyType type, Bounds bounds = {}, std::vector<std::string_view> choices = {});

// The names and values of `mapping`, which is for `key` and stands at `where`. Throws UserError for a value that is no
// scalar.
Mapping parse_mapping(const Key& key, const YamlMapping& mapping, std::string_view where);

// As YAML (and JSON) spell it; it reads back as the same value.
std::string format_value(const Value& value);
// The same, but a choice without quotes.
std::string format_value(const Key& key, const Value& value);
// "INTEGER", "a|b|c": for --help.
std::string type_name(const Key& key);

}  // namespace mixtune
