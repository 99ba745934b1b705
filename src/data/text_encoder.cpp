#include "data/text_encoder.h"

#include <algorithm>
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

// The ids of the whole text; those that hold a part of the completion, and EOS, are trained. The prompt's own ids are
// the whole's first ones, but where its end and the completion's beginning make one token.
TokenSequence encode_completion(const TextEncoder& encoder, const PromptCompletion& text) {
  const Tokenizer& tokenizer = *encoder.tokenizer;
  const std::vector<int32_t> prompt = tokenizer.encode(text.prompt);
  const std::vector<int32_t> whole = tokenizer.encode(text.prompt + text.completion);
  const auto end = std::ranges::mismatch(prompt, whole).in2;
  TokenSequence document;
  document.append({tokenizer.bos()}, false);
  document.append({whole.begin(), end}, encoder.train_on_prompt);
  document.append({end, whole.end()}, true);
  document.append({tokenizer.eos()}, true);
  return document;
}

}  // namespace

std::vector<TokenSequence> encode_record(Record record, const TextEncoder& encoder, const std::string& where) {
  if (auto* tokens = std::get_if<TokenizedRecord>(&record)) return std::move(*tokens);
  if (!encoder.tokenizer) throw UserError(where, "there is no tokenizer for its text", "set tokenizer_name_or_path");
  if (const auto* conversation = std::get_if<Conversation>(&record))
    return {encode_conversation(encoder, *conversation, where)};
  if (const auto* text = std::get_if<PromptCompletion>(&record)) return {encode_completion(encoder, *text)};
  return {encode_text(*encoder.tokenizer, std::get<std::string>(record))};
}

}  // namespace mixtune
