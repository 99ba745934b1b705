#include "data/span_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mixtune {

void SpanTokenizer::set_added_tokens(std::vector<AddedToken> tokens) {
  tokens_ = std::move(tokens);
  std::vector<std::pair<std::string, size_t>> names;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    MT_CHECK(by_name_.emplace(tokens_[i].name, i).second && by_id_.emplace(tokens_[i].id, i).second);
    names.emplace_back(tokens_[i].name, i);
  }
  finder_ = NameFinder(std::move(names));
}

const AddedToken* SpanTokenizer::added_token(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* SpanTokenizer::find_token(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tokens_[found->second];
}

std::optional<int32_t> SpanTokenizer::special_id(std::string_view name) const {
  const AddedToken* token = find_token(name);
  return token ? std::optional(token->id) : std::nullopt;
}

// Parts text[begin, end) at the names of tokens, or of those only that are not special.
void SpanTokenizer::cut(std::string_view text, size_t begin, size_t end, bool special, std::vector<Part>& parts) const {
  const std::string_view seen = text.substr(0, end);
  size_t from = begin;
  for (auto match = finder_.find(seen, begin); match; match = finder_.find(seen, match->end)) {
    const AddedToken& token = tokens_[match->number];
    if (token.special && !special) continue;
    if (from < match->begin) parts.push_back({from, match->begin});
    parts.push_back({match->begin, match->end, &token});
    from = match->end;
  }
  if (from < end) parts.push_back({from, end});
}

std::vector<TextSpan> SpanTokenizer::split_special(std::string_view text) const {
  std::vector<Part> parts;
  cut(text, 0, text.size(), true, parts);
  std::vector<TextSpan> spans;
  size_t from = 0;
  for (const Part& part : parts) {
    if (!part.token || !part.token->special) continue;
    if (from < part.begin) spans.push_back({text.substr(from, part.begin - from)});
    spans.push_back({text.substr(part.begin, part.end - part.begin), true});
    from = part.end;
  }
  if (from < text.size()) spans.push_back({text.substr(from)});
  return spans;
}

void SpanTokenizer::encode_parts(std::string_view text, std::vector<Part>& parts, EncodedSpans& out) const {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].token) continue;
    const auto stretch = [&](const Part& part) {
      return text.substr(part.begin, part.end - part.begin);
    };
    if (parts[i].token->lstrip && i > 0 && !parts[i - 1].token)
      parts[i - 1].end -= trailing_space(stretch(parts[i - 1]));
    if (parts[i].token->rstrip && i + 1 < parts.size() && !parts[i + 1].token)
      parts[i + 1].begin += leading_space(stretch(parts[i + 1]));
  }
  for (const Part& part : parts) {
    if (part.token) {
      out.ids.push_back(part.token->id);
      out.begins.push_back(part.begin);
    } else if (part.begin < part.end) {
      encode_stretch({text.substr(part.begin, part.end - part.begin), part.begin}, out);
    }
  }
}

EncodedSpans SpanTokenizer::encode_spans(std::span<const TextSpan> spans) const {
  std::string joined;
  if (spans.size() != 1)
    for (const TextSpan& span : spans) joined += span.text;
  const std::string_view text = spans.size() == 1 ? spans[0].text : joined;
  std::vector<Part> parts;
  size_t from = 0, end = 0;  // of the text that waits for its next special token
  for (const TextSpan& span : spans) {
    if (span.special) {
      const AddedToken* token = find_token(span.text);
      MT_CHECK(token);
      cut(text, from, end, false, parts);
      parts.push_back({end, end + span.text.size(), token});
      from = end + span.text.size();
    }
    end += span.text.size();
  }
  cut(text, from, end, false, parts);
  EncodedSpans out;
  encode_parts(text, parts, out);
  return out;
}

std::vector<int32_t> SpanTokenizer::encode(std::string_view text) const {
  const TextSpan span{text};
  return encode_spans({&span, 1}).ids;
}

}  // namespace mixtune
