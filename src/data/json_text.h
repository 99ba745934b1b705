// The text of a JSON value as Python's json.dumps(value, ensure_ascii=False) has it, which is how mistral-common and
// chat templates write functions and their calls: keys in their order, ", " and ": " between, floats as repr() has
// them. An integer of more than 64 bits, which the reader keeps as a float, is written as that float.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace mixtune {

std::string json_text(const nlohmann::ordered_json& value);

}  // namespace mixtune
