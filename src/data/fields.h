// Fields: typed access to the members of a JSON object of a data file. A member that is null counts as absent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_value.h"

namespace mixtune {

// The place of an object, put into words only for an error: "a.jsonl:12, turn 3, part 1". Refers to its arguments.
class FieldPlace {
 public:
  explicit FieldPlace(const std::string& record) : record_(&record) {}
  FieldPlace(const FieldPlace& outer, const char* kind, size_t number) : outer_(&outer), kind_(kind), number_(number) {}

  std::string text() const;
  [[noreturn]] void fail(std::string_view what, std::string_view mend) const;  // throws UserError

 private:
  const std::string* record_ = nullptr;
  const FieldPlace* outer_ = nullptr;
  const char* kind_ = "";
  size_t number_ = 0;  // from 1
};

// The kind of a value, for messages: "a list", "7", "a string".
std::string kind_of(const nlohmann::ordered_json& value);

// The flag of true or false, 1 or 0; none for any other value.
std::optional<bool> as_flag(const nlohmann::ordered_json& value);

// The weight of a token's loss: 1 or 0 for true or false, else a number that is 0 or is_weight (data/weights.h); none
// for any other value.
std::optional<float> as_weight(const nlohmann::ordered_json& value);

// Whether the value is null, "", [] or {}.
bool is_empty(const nlohmann::ordered_json& value);

// Refers to its arguments. Throws UserError, at the place, where a member is missing or of another type.
class Fields {
 public:
  Fields(const nlohmann::ordered_json& object, const FieldPlace& place) : object_(object), place_(place) {}

  const nlohmann::ordered_json& object() const { return object_; }
  const FieldPlace& place() const { return place_; }

  const nlohmann::ordered_json* find(std::string_view key) const;  // null: absent
  bool has(std::string_view key) const { return find(key) != nullptr; }
  const nlohmann::ordered_json& get(std::string_view key) const;

  const std::string& text(std::string_view key) const;
  const nlohmann::ordered_json& list(std::string_view key) const;
  bool flag(std::string_view key) const;
  std::vector<int32_t> integers(std::string_view key) const;
  std::vector<bool> flags(std::string_view key) const;
  std::vector<float> weights(std::string_view key) const;

  // "id, text, source": the keys that are not null, for messages.
  std::string keys() const;

  [[noreturn]] void fail(std::string_view key, const std::string& what) const;

 private:
  const nlohmann::ordered_json& object_;
  const FieldPlace& place_;
};

}  // namespace mixtune
