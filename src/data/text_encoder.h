// TextEncoder: turns a Record into tokens.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/record.h"
#include "data/tokenizer.h"

namespace mixtune {

// A run's way of turning text into tokens.
struct TextEncoder {
  const Tokenizer* tokenizer = nullptr;  // null: every record is tokenised
  ChatTemplate chat_template = {};
  bool train_on_prompt = false;
  bool parse_special_tokens = false;                     // special tokens that a text spells become these tokens
  std::map<ChatTemplateName, ChatTemplate> others = {};  // those that data sets of the run name for themselves

  // The encoder for a data set with this template; kAuto: the run's.
  TextEncoder with_template(ChatTemplateName name) const;
};

// Encodes a conversation by the chat template; text as BOS, text, EOS, all trained; a prompt and its completion as the
// text that they are together, the completion trained (where special tokens are parsed, no second BOS or EOS); tokens
// as they are. Returns the documents of the record, at least one: all but the first continue it. Throws UserError (at
// `where`) for text without a tokenizer and for what the template refuses.
std::vector<TokenSequence> encode_record(Record record, const TextEncoder& encoder, const std::string& where);

// The special tokens that the text of a record spells.
struct SpeltSpecials {
  int64_t count = 0;
  std::string first;  // name
};
SpeltSpecials spelt_specials(const Record& record, const Tokenizer& tokenizer);

}  // namespace mixtune
