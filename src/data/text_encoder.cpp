#include "data/text_encoder.h"

#include <utility>

#include "base/error.h"

namespace mixtune {

namespace {

TokenSequence encode_as_text(const Tokenizer& tokenizer, const std::string& text) {
  TokenSequence document;
  document.append({tokenizer.bos()}, false);
  document.append(tokenizer.encode(text), true);
  document.append({tokenizer.eos()}, true);
  return document;
}

TokenSequence encode_with_specials(const Tokenizer& tokenizer, const std::string& text) {
  const std::string bos = tokenizer.piece(tokenizer.bos()), eos = tokenizer.piece(tokenizer.eos());
  const auto is = [](const TextSpan& span, const std::string& name) {
    return span.special && span.text == name;
  };
  std::vector<TextSpan> spans = tokenizer.split_special(text);
  if (spans.empty() || !is(spans.front(), bos)) spans.insert(spans.begin(), {bos, true});
  if (!is(spans.back(), eos)) spans.push_back({eos, true});
  TokenSequence document;
  document.append(tokenizer.encode_spans(spans).ids, true);
  document.labels.front() = kIgnoreTarget;
  return document;
}

}  // namespace

std::vector<TokenSequence> encode_record(Record record, const TextEncoder& encoder, const std::string& where) {
  if (auto* tokens = std::get_if<TokenizedRecord>(&record)) return std::move(*tokens);
  if (!encoder.tokenizer) throw UserError(where, "there is no tokenizer for its text", "set tokenizer_name_or_path");
  if (const auto* conversation = std::get_if<Conversation>(&record))
    return {encode_conversation(encoder, *conversation, where)};
  const auto& text = std::get<std::string>(record);
  return {encoder.parse_special_tokens ? encode_with_specials(*encoder.tokenizer, text)
                                       : encode_as_text(*encoder.tokenizer, text)};
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
  if (const auto* text = std::get_if<std::string>(&record)) look(*text);
  return found;
}

}  // namespace mixtune
