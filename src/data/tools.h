// Functions on offer, and calls of them, in OpenAI's form and its older one, as records have them.
#pragma once

#include <string>
#include <vector>

#include "data/fields.h"
#include "data/record.h"

namespace mixtune {

// Parses `tools` (a list of {"type": "function", "function": {"name": ...}}, or of functions alone) or `functions` (of
// functions alone); each may be the JSON text of such a list. Each becomes {"type": "function", "function": {...}} as
// dump_as_python has it. Throws UserError for any other value, and where both are there.
std::vector<std::string> parse_tools(const Fields& record);

// Parses one call or a list of them: {"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}, or a
// function's name and arguments alone. Arguments are an object, its JSON text or absent ({}).
std::vector<ToolCall> parse_tool_calls(const nlohmann::ordered_json& calls, const FieldPlace& place);

// Parses a string that must be JSON. Throws UserError, which names `key`, where it is not.
nlohmann::ordered_json parse_json_string(const std::string& text, std::string_view key, const FieldPlace& place);

}  // namespace mixtune
