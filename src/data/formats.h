// The formats of a data file: from a JSON object to a Record.
//
//   messages     {"messages": [{"role": "system|user|assistant", "content": "..."}]}, or ShareGPT's
//                {"conversations": [{"from": "system|human|gpt", "value": "..."}]}
//   instruction  {"instruction": "...", "input": "...", "output": "..."}; one of the first two may be absent
//   text         {"text": "..."}
//   tokenized    {"input_ids": [...], "labels": [...]}; labels may be absent: all are trained. "continues_record": true
//                in what `preprocess` cut: a further piece of the record of the line before
//
// Other keys are not read, except those that would change what a record means (tool calls, message weights, an
// attention mask with zeros): they are errors.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "config/config.h"
#include "data/record.h"

namespace mixtune {

std::string_view format_name(DatasetFormat format);

// The format that a record's keys show. Throws UserError (at `where`) where they show none.
DatasetFormat detect_format(const nlohmann::json& record, const std::string& where);

// Reads a record of `format` (not kAuto). Throws UserError (at `where`) for a missing field, a wrong type, or a role
// that is not known.
Record parse_record(const nlohmann::json& record, DatasetFormat format, const std::string& where);

}  // namespace mixtune
