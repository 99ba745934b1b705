// The formats of a data file: from a JSON object to a Record. docs/data.md has each with examples, what is trained of
// it, and every key that is read, left unread or refused; null counts as absent.
//
//   messages           {"messages" or "conversation(s)": [{"role": ..., "content": ...}, ...]}; turns may be
//                      {"from": ..., "value": ...}
//   instruction        {"instruction": ..., "input": ..., "output": ..., "history": [[..., ...]]}
//   prompt_completion  {"prompt": ..., "completion": ...}: two strings, or two lists of turns
//   text               {"text": ...}
//   tokenized          {"input_ids": [...], "labels": [...]}; "continues_record": true in what `preprocess` cut: a
//                      further piece of the record of the line before
#pragma once

#include <string>
#include <string_view>

#include "base/json_value.h"
#include "config/config.h"
#include "data/record.h"
#include "data/unread_keys.h"

namespace mixtune {

std::string_view format_name(DatasetFormat format);

// The format that a record's keys show; where they show several, the first in the order tokenized, messages,
// instruction, prompt_completion, text. Throws UserError (at `where`) where they show none.
DatasetFormat detect_format(const nlohmann::ordered_json& record, const std::string& where);

// Reads a record of `format` (not kAuto), and adds to `unread` the keys that it leaves. Throws UserError (at `where`)
// for a record of another format, a wrong type, a role that is not known, or a key that would change what is trained
// and is not honoured.
Record parse_record(const nlohmann::ordered_json& record, DatasetFormat format, const std::string& where,
                    UnreadKeys& unread);

}  // namespace mixtune
