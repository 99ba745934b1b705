// The turns of a conversation, in both dialects: {"role": ..., "content": ...} and {"from": ..., "value": ...}.
#pragma once

#include <string>
#include <vector>

#include "data/fields.h"
#include "data/record.h"
#include "data/unread_keys.h"

namespace mixtune {

// Reads the list of turns that `record` has at `key`. A turn's `train`, `training`, `trainable`, `loss` or `weight`
// (true or false, 1 or 0, or another weight) is Turn::train and Turn::weight. Keys that are not read go to `unread`.
// Throws UserError for a role that is not known, dialects mixed in a turn, parts of a content that are not text, and
// what check_keys refuses.
std::vector<Turn> parse_turns(const Fields& record, std::string_view key, UnreadKeys& unread);

// Parses a string, or a list of parts: strings and {"type": "text", "text": ...}. Parts that are not empty are joined
// by an empty line, as mistral-common joins them.
std::string parse_content(const Fields& fields, std::string_view key, UnreadKeys& unread);

}  // namespace mixtune
