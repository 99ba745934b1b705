#include "data/text_encoder.h"

#include <utility>

#include "base/error.h"
#include "data/chat_template.h"

namespace mixtune {

namespace {

TokenSequence encode_text(const Tokenizer& tokenizer, const std::string& text) {
  TokenSequence document;
  document.append({tokenizer.bos()}, false);
  document.append(tokenizer.encode(text), true);
  document.append({tokenizer.eos()}, true);
  return document;
}

}  // namespace

std::vector<TokenSequence> encode_record(Record record, const TextEncoder& encoder, const std::string& where) {
  if (auto* tokens = std::get_if<TokenizedRecord>(&record)) return std::move(*tokens);
  if (!encoder.tokenizer) throw UserError(where, "there is no tokenizer for its text", "set tokenizer_name_or_path");
  if (const auto* conversation = std::get_if<Conversation>(&record))
    return {encode_conversation(encoder, *conversation, where)};
  return {encode_text(*encoder.tokenizer, std::get<std::string>(record))};
}

}  // namespace mixtune
