// Functions on offer, and calls of them, as records have them in OpenAI's form and its older one.
#pragma once

#include <string>
#include <vector>

#include "data/fields.h"
#include "data/record.h"

namespace mixtune {

// `tools` (a list of {"type": "function", "function": {"name": ...}}, or of functions alone) or `functions` (of
// functions alone); each may be the JSON text of such a list. Each becomes {"type": "function", "function": {...}} as
// dump_as_python has it. Throws UserError for anything else, and where both are there.
std::vector<std::string> parse_tools(const Fields& record);

// One call or a list of them: {"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}, or a
// function's name and arguments alone; arguments are an object, its JSON text or absent ({}).
std::vector<ToolCall> parse_tool_calls(const nlohmann::ordered_json& calls, const Place& place);

// What a string that is JSON holds; the string itself otherwise refused by a UserError that names `key`.
nlohmann::ordered_json parse_json_string(const std::string& text, std::string_view key, const Place& place);

}  // namespace mixtune
