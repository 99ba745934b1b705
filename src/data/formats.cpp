#include "data/formats.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

using nlohmann::json;

constexpr std::array<std::pair<std::string_view, Role>, 5> kRoles = {{{"system", Role::kSystem},
                                                                      {"user", Role::kUser},
                                                                      {"human", Role::kUser},
                                                                      {"assistant", Role::kAssistant},
                                                                      {"gpt", Role::kAssistant}}};

// A JSON object with where it stands, for messages.
class Fields {
 public:
  Fields(const json& object, const std::string& where) : object_(object), where_(where) {}

  bool has(const char* key) const { return object_.contains(key); }

  const std::string& text(const char* key) const {
    const json& value = get(key);
    if (!value.is_string()) fail(key, fmt::format("is {}, not a string", kind(value)));
    return value.get_ref<const std::string&>();
  }

  bool flag(const char* key) const {
    const json& value = get(key);
    if (!value.is_boolean()) fail(key, fmt::format("is {}, not true or false", kind(value)));
    return value.get<bool>();
  }

  const json& list(const char* key) const {
    const json& value = get(key);
    if (!value.is_array()) fail(key, fmt::format("is {}, not a list", kind(value)));
    return value;
  }

  // A list of integers that fit int32.
  std::vector<int32_t> integers(const char* key) const {
    const json& values = list(key);
    std::vector<int32_t> result;
    result.reserve(values.size());
    for (const json& value : values) {
      const bool fits = value.is_number_unsigned()
                            ? value.get<uint64_t>() <= uint64_t{std::numeric_limits<int32_t>::max()}
                            : value.is_number_integer() && value.get<int64_t>() >= std::numeric_limits<int32_t>::min();
      if (!fits) fail(key, fmt::format("holds {} (entry {}), not a token id", kind(value), result.size()));
      result.push_back(value.get<int32_t>());
    }
    return result;
  }

  [[noreturn]] void fail(std::string_view key, const std::string& what) const {
    throw UserError(where_, fmt::format("'{}' {}", key, what), "every record must be of the file's dataset_format");
  }

  static std::string kind(const json& value) {
    return value.is_number()
               ? printable(value.dump(), 24)
               : fmt::format("{} {}", value.is_object() || value.is_array() ? "an" : "a", value.type_name());
  }

 private:
  const json& get(const char* key) const {
    const auto at = object_.find(key);
    if (at == object_.end()) fail(key, "is missing");
    return *at;
  }

  const json& object_;
  const std::string& where_;
};

Role parse_role(const std::string& name, const std::string& where) {
  for (const auto& [known, role] : kRoles)
    if (name == known) return role;
  throw UserError(where, fmt::format("unknown role '{}'", printable(name)),
                  "roles are system, user (human) and assistant (gpt)");
}

// Fields of a message that change what is trained, and that the v1 template has no place for.
void refuse_extras(const json& message, const std::string& where) {
  for (const char* key : {"tool_calls", "function_call"})
    if (message.contains(key) && !message[key].empty())
      throw UserError(where, fmt::format("'{}' is not supported", key), "remove the record, or write the call as text");
  if (message.contains("weight") && !message["weight"].is_null() && message["weight"] != 1)
    throw UserError(where, "a message 'weight' other than 1 is not supported", "remove it, or use format tokenized");
}

Record parse_messages(const json& record, const std::string& where) {
  const bool share_gpt = !record.contains("messages") && record.contains("conversations");
  const json& messages = Fields(record, where).list(share_gpt ? "conversations" : "messages");
  Conversation conversation;
  for (const json& message : messages) {
    const std::string here = fmt::format("{}, turn {}", where, conversation.turns.size() + 1);
    if (!message.is_object()) throw UserError(here, "is not an object", "a turn has a role and a content");
    refuse_extras(message, here);
    const Fields fields(message, here);
    const Role role = parse_role(fields.text(share_gpt ? "from" : "role"), here);
    conversation.turns.push_back({.role = role, .text = fields.text(share_gpt ? "value" : "content")});
  }
  return conversation;
}

Record parse_instruction(const json& record, const std::string& where) {
  const Fields fields(record, where);
  std::string prompt = fields.text(fields.has("instruction") ? "instruction" : "input");
  if (fields.has("instruction") && fields.has("input")) {
    const std::string& input = fields.text("input");
    if (!prompt.empty() && !input.empty()) prompt += "\n\n";
    prompt += input;
  }
  return Conversation{.turns = {{.role = Role::kUser, .text = std::move(prompt)},
                                {.role = Role::kAssistant, .text = fields.text("output")}}};
}

void check_mask(const json& mask, size_t ids, const std::string& where) {
  if (mask.size() != ids)
    throw UserError(where, fmt::format("'attention_mask' has {} entries for {} input_ids", mask.size(), ids),
                    "remove it: every token is seen");
  for (const json& seen : mask)
    if (seen != 1) throw UserError(where, "'attention_mask' has entries that are not 1", "remove padding tokens");
}

Record parse_tokenized(const json& record, const std::string& where) {
  const Fields fields(record, where);
  TokenSequence tokens;
  tokens.ids = fields.integers("input_ids");
  tokens.labels = fields.has("labels") ? fields.integers("labels") : tokens.ids;
  if (tokens.labels.size() != tokens.ids.size())
    throw UserError(where, fmt::format("{} labels for {} input_ids", tokens.labels.size(), tokens.ids.size()),
                    "give each token its own label (-100: not trained); they are not shifted");
  if (fields.has("attention_mask")) check_mask(fields.list("attention_mask"), tokens.ids.size(), where);
  tokens.continues = fields.has("continues_record") && fields.flag("continues_record");
  return TokenizedRecord{std::move(tokens)};
}

}  // namespace

std::string_view format_name(DatasetFormat format) {
  constexpr std::string_view kNames[] = {"auto", "messages", "instruction", "text", "tokenized"};
  return kNames[static_cast<int>(format)];
}

DatasetFormat detect_format(const json& record, const std::string& where) {
  const auto has = [&](const char* key) {
    return record.contains(key);
  };
  if (has("input_ids")) return DatasetFormat::kTokenized;
  if (has("messages") || has("conversations")) return DatasetFormat::kMessages;
  if (has("output") && (has("instruction") || has("input"))) return DatasetFormat::kInstruction;
  if (has("text")) return DatasetFormat::kText;
  throw UserError(where, "the keys of the first record show none of mixtune's formats",
                  "it needs messages or conversations, instruction or input with output, text, or input_ids");
}

Record parse_record(const json& record, DatasetFormat format, const std::string& where) {
  MT_CHECK(format != DatasetFormat::kAuto);
  if (format == DatasetFormat::kMessages) return parse_messages(record, where);
  if (format == DatasetFormat::kInstruction) return parse_instruction(record, where);
  if (format == DatasetFormat::kText) return Fields(record, where).text("text");
  return parse_tokenized(record, where);
}

}  // namespace mixtune
