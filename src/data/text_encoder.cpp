#include "data/text_encoder.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "data/label.h"

namespace mixtune {

namespace {

// The ids of BOS, the text and, where it `ends`, EOS. Where special tokens are parsed, neither comes twice.
std::vector<int32_t> framed_ids(const TextEncoder& encoder, const std::string& text, bool ends) {
  const Tokenizer& tokenizer = *encoder.tokenizer;
  if (!encoder.parse_special_tokens) {
    std::vector<int32_t> ids = tokenizer.encode(text);
    ids.insert(ids.begin(), tokenizer.bos());
    if (ends) ids.push_back(tokenizer.eos());
    return ids;
  }
  const std::string bos = tokenizer.piece(tokenizer.bos()), eos = tokenizer.piece(tokenizer.eos());
  const auto is = [](const TextSpan& span, const std::string& name) {
    return span.special && span.text == name;
  };
  std::vector<TextSpan> spans = tokenizer.split_special(text);
  if (spans.empty() || !is(spans.front(), bos)) spans.insert(spans.begin(), {bos, true});
  if (ends && !is(spans.back(), eos)) spans.push_back({eos, true});
  return tokenizer.encode_spans(spans).ids;
}

TokenSequence encode_text(const TextEncoder& encoder, const std::string& text) {
  TokenSequence document;
  document.append(framed_ids(encoder, text, true), 1);
  document.labels.front() = kIgnoreTarget;
  return document;
}

// Encodes the whole text. Its ids that hold a part of the completion, and EOS, are trained. Its first ids are the
// prompt's own, unless the prompt's end and the completion's beginning make one token.
TokenSequence encode_completion(const TextEncoder& encoder, const PromptCompletion& text) {
  const std::vector<int32_t> prompt = framed_ids(encoder, text.prompt, false);
  const std::vector<int32_t> whole = framed_ids(encoder, text.prompt + text.completion, true);
  const auto end = std::ranges::mismatch(prompt, whole).in2;
  TokenSequence document;
  document.append({whole.begin(), end}, encoder.train_on_prompt ? 1 : 0);
  document.append({end, whole.end()}, 1);
  document.labels.front() = kIgnoreTarget;
  return document;
}

}  // namespace

TextEncoder TextEncoder::with_template(ChatTemplateName name) const {
  TextEncoder encoder = *this;
  if (const auto other = others.find(name); other != others.end()) encoder.chat_template = other->second;
  return encoder;
}

std::vector<TokenSequence> encode_record(Record record, const TextEncoder& encoder, const std::string& where) {
  if (auto* tokens = std::get_if<TokenizedRecord>(&record)) return std::move(*tokens);
  if (!encoder.tokenizer) throw UserError(where, "there is no tokenizer for its text", "set tokenizer_name_or_path");
  if (const auto* conversation = std::get_if<Conversation>(&record))
    return {encode_conversation(encoder, *conversation, where)};
  if (const auto* text = std::get_if<PromptCompletion>(&record)) return {encode_completion(encoder, *text)};
  return {encode_text(encoder, std::get<std::string>(record))};
}

SpeltSpecials spelt_specials(const Record& record, const Tokenizer& tokenizer) {
  SpeltSpecials found;
  const auto look = [&](const std::string& text) {
    for (const TextSpan& span : tokenizer.split_special(text)) {
      if (!span.special) continue;
      if (found.count++ == 0) found.first = span.text;
    }
  };
  if (const auto* conversation = std::get_if<Conversation>(&record))
    for (const Turn& turn : conversation->turns) look(turn.text);
  if (const auto* pair = std::get_if<PromptCompletion>(&record)) look(pair->prompt), look(pair->completion);
  if (const auto* text = std::get_if<std::string>(&record)) look(*text);
  return found;
}

}  // namespace mixtune
