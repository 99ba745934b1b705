// How the table of keys is written: a key for each field of Config's sections, its type that of the field.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/choices.h"
#include "config/keys.h"

namespace mixtune {

// How a field of type T is held in a Value.
template <class T>
struct KeyField {  // enums
  static constexpr KeyType kType = KeyType::kChoice;
  static Value to_value(T field) { return std::string(names<T>()[static_cast<size_t>(field)]); }
  static T from_value(const Value& value) {
    const auto all = names<T>();
    return static_cast<T>(std::find(all.begin(), all.end(), std::get<std::string>(value)) - all.begin());
  }
};

template <class T, KeyType type>
struct PlainKeyField {
  static constexpr KeyType kType = type;
  static Value to_value(const T& field) { return field; }
  static T from_value(const Value& value) {
    return std::holds_alternative<std::monostate>(value) ? T{} : std::get<T>(value);
  }
};
template <>
struct KeyField<bool> : PlainKeyField<bool, KeyType::kBoolean> {};
template <>
struct KeyField<int64_t> : PlainKeyField<int64_t, KeyType::kInteger> {};
template <>
struct KeyField<double> : PlainKeyField<double, KeyType::kNumber> {};
template <>
struct KeyField<std::vector<std::string>> : PlainKeyField<std::vector<std::string>, KeyType::kTextList> {
  static Value to_value(const std::vector<std::string>& field) { return field.empty() ? Value() : Value(field); }
};
template <>
struct KeyField<std::vector<Dataset>> : PlainKeyField<std::vector<Dataset>, KeyType::kDatasets> {
  static Value to_value(const std::vector<Dataset>& field) { return field.empty() ? Value() : Value(field); }
};
template <>
struct KeyField<Mapping> : PlainKeyField<Mapping, KeyType::kMapping> {
  static Value to_value(const Mapping& field) { return field.empty() ? Value() : Value(field); }
};
template <>
struct KeyField<ValidationFiles> {
  static constexpr KeyType kType = KeyType::kNamedFiles;
  static Value to_value(const ValidationFiles& field) {
    return field.named.empty() ? KeyField<std::vector<std::string>>::to_value(field.path) : Value(field.named);
  }
  static ValidationFiles from_value(const Value& value) {
    if (const auto* named = std::get_if<Mapping>(&value)) return {.path = {}, .named = *named};
    return {.path = KeyField<std::vector<std::string>>::from_value(value), .named = {}};
  }
};
template <>
struct KeyField<std::string> : PlainKeyField<std::string, KeyType::kText> {
  static Value to_value(const std::string& field) { return field.empty() ? Value() : Value(field); }
};
template <>
struct KeyField<uint64_t> {
  static constexpr KeyType kType = KeyType::kInteger;
  static Value to_value(uint64_t field) { return static_cast<int64_t>(field); }
  static uint64_t from_value(const Value& value) { return static_cast<uint64_t>(std::get<int64_t>(value)); }
};
template <class T>
struct KeyField<std::optional<T>> {
  static constexpr KeyType kType = KeyField<T>::kType;
  static Value to_value(const std::optional<T>& field) { return field ? KeyField<T>::to_value(*field) : Value(); }
  static std::optional<T> from_value(const Value& value) {
    return std::holds_alternative<std::monostate>(value) ? std::nullopt : std::optional(KeyField<T>::from_value(value));
  }
};

// The names of a choice's values; of another field none.
template <class T>
struct KeyChoices {
  static std::vector<std::string_view> all() {
    if constexpr (std::is_enum_v<T>) return names<T>();
    return {};
  }
};
template <class T>
struct KeyChoices<std::optional<T>> : KeyChoices<T> {};

// What some keys need besides their name, group and help line.
struct KeyExtra {
  Bounds bounds = {};
  bool nullable = false;
};

// The table, key by key.
class KeyTable {
 public:
  void group(std::string_view name) { group_ = name; }

  template <class Section, class T>
  void add(std::string_view name, Section Config::*section, T Section::*field, std::string_view help,
           KeyExtra extra = {}) {
    keys_.push_back(
        {.name = name,
         .group = group_,
         .help = help,
         .type = KeyField<T>::kType,
         .nullable = extra.nullable,
         .bounds = extra.bounds,
         .choices = KeyChoices<T>::all(),
         .set = [=](Config& config, const Value& v) { config.*section.*field = KeyField<T>::from_value(v); },
         .get =
             [=](const Config& config) {
               return KeyField<T>::to_value(config.*section.*field);
             }});
  }

  Key& last() { return keys_.back(); }
  std::vector<Key> take() { return std::move(keys_); }

 private:
  std::string_view group_;
  std::vector<Key> keys_;
};

inline constexpr KeyExtra kNullable = {.bounds = {}, .nullable = true};

void add_adapter_keys(KeyTable& table);  // adapter_keys.cpp
void add_router_keys(KeyTable& table);   // router_keys.cpp

}  // namespace mixtune
