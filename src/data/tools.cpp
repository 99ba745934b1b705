#include "data/tools.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/json.h"
#include "data/python_json.h"
#include "data/record_reader.h"

namespace mixtune {

namespace {

using nlohmann::ordered_json;

constexpr const char* kToolMend =
    R"(write each as {"type": "function", "function": {"name": ..., "parameters": {...}}})";
constexpr const char* kCallMend = R"(write each as {"function": {"name": ..., "arguments": {...}}})";

// The value as Python writes it. A parsed one nests too little, and has too sound strings, for Python to raise.
std::string python_text(const ordered_json& value) {
  const std::optional<std::string> text = dump_as_python(value.dump());
  MT_CHECK(text.has_value());
  return *text;
}

// The object that has name and arguments: `object` itself, or its "function" where it has one.
const ordered_json& function_of(const ordered_json& object, const FieldPlace& place, const char* mend) {
  if (!object.is_object()) place.fail(fmt::format("is {}, not an object", kind_of(object)), mend);
  const Fields fields(object, place);
  const ordered_json* type = fields.find("type");
  const ordered_json* function = fields.find("function");
  if (function && type && !(type->is_string() && type->get_ref<const std::string&>() == "function"))
    place.fail(fmt::format("'type' is {}, not \"function\"", printable(type->dump())), mend);
  if (!function) function = &object;
  const ordered_json* name = function->is_object() ? Fields(*function, place).find("name") : nullptr;
  if (!name || !name->is_string() || is_empty(*name)) place.fail("has no function's 'name'", mend);
  return *function;
}

std::string tool_text(const ordered_json& tool, const FieldPlace& place) {
  const ordered_json& function = function_of(tool, place, kToolMend);
  if (&function != &tool) return python_text(tool);
  return fmt::format(R"({{"type": "function", "function": {}}})", python_text(tool));
}

std::string arguments_text(const Fields& function) {
  const ordered_json* arguments = function.find("arguments");
  if (!arguments) return "{}";
  const bool is_text = arguments->is_string();
  if (is_text && is_empty(*arguments)) return "{}";
  const ordered_json object =
      is_text ? parse_json_string(arguments->get_ref<const std::string&>(), "arguments", function.place()) : *arguments;
  if (!object.is_object())
    function.place().fail(fmt::format("'arguments' is {}, not an object", kind_of(object)), kCallMend);
  return python_text(object);
}

ToolCall parse_tool_call(const ordered_json& call, const FieldPlace& place) {
  const Fields function(function_of(call, place, kCallMend), place);
  const Fields fields(call, place);
  return {.id = fields.has("id") ? fields.text("id") : "",
          .name = function.text("name"),
          .arguments = arguments_text(function)};
}

}  // namespace

ordered_json parse_json_string(const std::string& text, std::string_view key, const FieldPlace& place) {
  return parse_ordered_json(text, fmt::format("{}, '{}'", place.text(), key), "write it as JSON", kMaxJsonDepth);
}

std::vector<std::string> parse_tools(const Fields& record) {
  const auto find = [&](const char* key) {
    const ordered_json* value = record.find(key);
    return value && !is_empty(*value) ? value : nullptr;
  };
  const ordered_json* tools = find("tools");
  const ordered_json* functions = find("functions");
  if (tools && functions) record.place().fail("has both 'tools' and 'functions'", "remove one");
  if (!tools && !functions) return {};
  const char* key = tools ? "tools" : "functions";
  const ordered_json& value = tools ? *tools : *functions;
  const bool is_text = value.is_string();
  const ordered_json parsed =
      is_text ? parse_json_string(value.get_ref<const std::string&>(), key, record.place()) : ordered_json();
  const ordered_json& list = is_text ? parsed : value;
  if (list.is_null()) return {};
  if (!list.is_array()) record.fail(key, fmt::format("is {}, not a list", kind_of(list)));
  std::vector<std::string> texts;
  for (const ordered_json& tool : list) texts.push_back(tool_text(tool, {record.place(), "tool", texts.size() + 1}));
  return texts;
}

std::vector<ToolCall> parse_tool_calls(const ordered_json& calls, const FieldPlace& place) {
  if (!calls.is_array()) return {parse_tool_call(calls, place)};
  std::vector<ToolCall> result;
  for (const ordered_json& call : calls)
    result.push_back(parse_tool_call(call, {place, "tool call", result.size() + 1}));
  return result;
}

}  // namespace mixtune
