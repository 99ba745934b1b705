#include "data/fields.h"

#include <fmt/format.h>

#include <limits>

#include "base/error.h"
#include "data/weights.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

}  // namespace

std::string FieldPlace::text() const {
  return outer_ ? fmt::format("{}, {} {}", outer_->text(), kind_, number_) : *record_;
}

void FieldPlace::fail(std::string_view what, std::string_view mend) const {
  throw UserError(text(), what, mend);
}

std::string kind_of(const ordered_json& value) {
  if (value.is_number() || value.is_boolean()) return printable(value.dump(), 24);
  if (value.is_array()) return "a list";
  return value.is_object() ? "an object" : fmt::format("a {}", value.type_name());
}

std::optional<bool> as_flag(const ordered_json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number() && (value == 0 || value == 1)) return value == 1;
  return std::nullopt;
}

std::optional<float> as_weight(const ordered_json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1.0F : 0.0F;
  if (!value.is_number()) return std::nullopt;
  const auto weight = value.get<double>();
  if (weight == 0) return 0.0F;
  return is_weight(weight) ? std::optional(static_cast<float>(weight)) : std::nullopt;
}

bool is_empty(const ordered_json& value) {
  return value.empty() || (value.is_string() && value.get_ref<const std::string&>().empty());
}

const ordered_json* Fields::find(std::string_view key) const {
  for (const auto& [name, value] : object_.get_ref<const ordered_json::object_t&>())
    if (name == key) return value.is_null() ? nullptr : &value;
  return nullptr;
}

const ordered_json& Fields::get(std::string_view key) const {
  const ordered_json* value = find(key);
  if (!value) fail(key, "is missing");
  return *value;
}

const std::string& Fields::text(std::string_view key) const {
  const ordered_json& value = get(key);
  if (!value.is_string()) fail(key, fmt::format("is {}, not a string", kind_of(value)));
  return value.get_ref<const std::string&>();
}

const ordered_json& Fields::list(std::string_view key) const {
  const ordered_json& value = get(key);
  if (!value.is_array()) fail(key, fmt::format("is {}, not a list", kind_of(value)));
  return value;
}

bool Fields::flag(std::string_view key) const {
  const ordered_json& value = get(key);
  if (!value.is_boolean()) fail(key, fmt::format("is {}, not true or false", kind_of(value)));
  return value.get<bool>();
}

std::vector<int32_t> Fields::integers(std::string_view key) const {
  const ordered_json& values = list(key);
  std::vector<int32_t> result;
  result.reserve(values.size());
  for (const ordered_json& value : values) {
    const bool fits = value.is_number_unsigned()
                          ? value.get<uint64_t>() <= uint64_t{std::numeric_limits<int32_t>::max()}
                          : value.is_number_integer() && value.get<int64_t>() >= std::numeric_limits<int32_t>::min();
    if (!fits) fail(key, fmt::format("holds {} (entry {}), not an integer of 32 bits", kind_of(value), result.size()));
    result.push_back(value.get<int32_t>());
  }
  return result;
}

std::vector<bool> Fields::flags(std::string_view key) const {
  const ordered_json& values = list(key);
  std::vector<bool> result;
  result.reserve(values.size());
  for (const ordered_json& value : values) {
    const std::optional<bool> flag = as_flag(value);
    if (!flag) fail(key, fmt::format("holds {} (entry {}), not 0 or 1", kind_of(value), result.size()));
    result.push_back(*flag);
  }
  return result;
}

std::vector<float> Fields::weights(std::string_view key) const {
  const ordered_json& values = list(key);
  std::vector<float> result;
  result.reserve(values.size());
  for (const ordered_json& value : values) {
    const std::optional<float> weight = as_weight(value);
    if (!weight)
      fail(key, fmt::format("holds {} (entry {}), not 0 or a weight from {} to {}", kind_of(value), result.size(),
                            kMinWeight, kMaxWeight));
    result.push_back(*weight);
  }
  return result;
}

std::string Fields::keys() const {
  constexpr size_t kShown = 300;
  std::string keys;
  for (const auto& [name, value] : object_.get_ref<const ordered_json::object_t&>()) {
    if (value.is_null()) continue;
    keys += fmt::format("{}{}", keys.empty() ? "" : ", ", printable(name));
    if (keys.size() > kShown) break;
  }
  return keys.empty() ? "none" : printable(keys, kShown);
}

void Fields::fail(std::string_view key, const std::string& what) const {
  place_.fail(fmt::format("'{}' {}", key, what), "docs/data.md has what the keys of each format hold");
}

}  // namespace mixtune
