#include "data/span_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mixtune {

void SpanTokenizer::set_added_tokens(int32_t pieces, std::vector<AddedToken> tokens, SpaceNormalizer normalizer) {
  pieces_ = pieces;
  vocab_size_ = tokens.empty() ? pieces : std::max(pieces, tokens.back().id + 1);
  tokens_ = std::move(tokens);
  normalizer_ = std::move(normalizer);
  std::vector<std::pair<std::string, size_t>> names, normalized;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& name = tokens_[i].name;
    MT_CHECK(by_name_.emplace(name, i).second && by_id_.emplace(tokens_[i].id, i).second);
    if (tokens_[i].normalized)
      normalized.emplace_back(MarkedText(name, normalizer_.prefix(name), normalizer_.replaces_spaces()).marked(), i);
    else
      names.emplace_back(name, i);
  }
  finder_ = NameFinder(std::move(names));
  normalized_finder_ = NameFinder(std::move(normalized));
}

const AddedToken* SpanTokenizer::added_token(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

// A mark in a text counts as the space that stands in the name of a normalised token.
const AddedToken* SpanTokenizer::find_token(std::string_view name) const {
  auto found = by_name_.find(name);
  if (found == by_name_.end()) {
    std::string spaced(name);
    for (size_t at = 0; (at = spaced.find(kSpaceMark, at)) != spaced.npos;) spaced.replace(at, kSpaceMark.size(), " ");
    found = by_name_.find(spaced);
  }
  return found == by_name_.end() ? nullptr : &tokens_[found->second];
}

std::optional<int32_t> SpanTokenizer::special_id(std::string_view name) const {
  const AddedToken* token = find_token(name);
  return token ? std::optional(token->id) : std::nullopt;
}

std::vector<SpecialToken> SpanTokenizer::special_tokens() const {
  std::vector<SpecialToken> list;
  for (const AddedToken& token : tokens_) list.push_back({token.name, token.id, token.special, token.id >= pieces_});
  return list;
}

// Parts text[begin, end) at the names that are not normalised.
void SpanTokenizer::cut(std::string_view text, size_t begin, size_t end, Names names, Parts& parts) const {
  const std::string_view seen = text.substr(0, end);
  size_t from = begin;
  for (auto match = finder_.find(seen, begin); match; match = finder_.find(seen, match->end)) {
    const AddedToken& token = tokens_[match->number];
    if (token.special && names == Names::kOrdinary) continue;
    if (from < match->begin) parts.push_back({from, match->begin});
    parts.push_back({match->begin, match->end, &token});
    from = match->end;
  }
  if (from < end) parts.push_back({from, end});
}

// Parts a text at the names that are normalised. The marks that the normaliser puts before such a name are not the
// token's here: take_in_space gives them to it.
void SpanTokenizer::cut_marked(std::string_view text, const Part& part, Names names, Parts& parts) const {
  MarkedText marked(text.substr(part.begin, part.end - part.begin), part.marks, normalizer_.replaces_spaces());
  Part rest = part;
  const auto& seen = marked.marked();
  for (auto match = normalized_finder_.find(seen, 0); match; match = normalized_finder_.find(seen, match->end)) {
    const AddedToken& token = tokens_[match->number];
    if (token.special && names == Names::kOrdinary) continue;
    const size_t marks = normalizer_.prefix(token.name) * kSpaceMark.size();
    const size_t begin = part.begin + marked.begin_of(match->begin + marks);
    const size_t end = part.begin + marked.begin_of(match->end);
    if (rest.begin < begin || match->begin > 0) parts.push_back({rest.begin, begin, nullptr, rest.marks});
    parts.push_back({begin, end, &token});
    rest = {end, part.end};
  }
  if (rest.begin < rest.end) parts.push_back(rest);
}

SpanTokenizer::Parts SpanTokenizer::cut_normalized(std::string_view text, const Parts& parts, Names names) const {
  if (normalized_finder_.empty()) return parts;
  Parts cut;
  for (const Part& part : parts)
    if (part.token)
      cut.push_back(part);
    else
      cut_marked(text, part, names, cut);
  return cut;
}

// Gives tokens the white space beside them that they take in.
void SpanTokenizer::take_in_space(std::string_view text, Parts& parts, bool normalized) const {
  const bool blanks = !normalized || !normalizer_.replaces_spaces();
  const auto text_of = [&](const Part& part) {
    return text.substr(part.begin, part.end - part.begin);
  };
  for (size_t i = 0; i < parts.size(); ++i) {
    const AddedToken* token = parts[i].token;
    if (!token || token->normalized != normalized) continue;
    Part* before = i > 0 && !parts[i - 1].token ? &parts[i - 1] : nullptr;
    Part* after = i + 1 < parts.size() && !parts[i + 1].token ? &parts[i + 1] : nullptr;
    for (size_t marks = normalized ? normalizer_.prefix(token->name) : 0; before && marks > 0; --marks) {
      const std::string_view ended = text_of(*before);
      if (ended.ends_with(kSpaceMark))
        before->end -= kSpaceMark.size();
      else if (ended.ends_with(' '))
        --before->end;
      else
        before->marks -= ended.empty() && before->marks > 0;
    }
    if (before && token->lstrip) before->end -= trailing_space(text_of(*before), blanks);
    if (after && token->rstrip) after->begin += leading_space(text_of(*after), blanks);
  }
}

// The normaliser puts its marks where a text begins, and behind each token that is not normalised.
void SpanTokenizer::count_marks(std::string_view text, Parts& parts) const {
  for (size_t i = 0; i < parts.size(); ++i) {
    const AddedToken* before = i > 0 ? parts[i - 1].token : nullptr;
    if (!parts[i].token && !(before && before->normalized))
      parts[i].marks = normalizer_.prefix(text.substr(parts[i].begin, parts[i].end - parts[i].begin));
  }
}

std::vector<TextSpan> SpanTokenizer::split_special(std::string_view text) const {
  Parts parts;
  cut(text, 0, text.size(), Names::kAll, parts);
  take_in_space(text, parts, false);
  count_marks(text, parts);
  std::vector<TextSpan> spans;
  size_t from = 0;
  for (const Part& part : cut_normalized(text, parts, Names::kAll)) {
    if (!part.token || !part.token->special) continue;
    if (from < part.begin) spans.push_back({text.substr(from, part.begin - from)});
    spans.push_back({text.substr(part.begin, part.end - part.begin), true});
    from = part.end;
  }
  if (from < text.size()) spans.push_back({text.substr(from)});
  return spans;
}

EncodedSpans SpanTokenizer::encode_spans(std::span<const TextSpan> spans) const {
  std::string joined;
  if (spans.size() != 1)
    for (const TextSpan& span : spans) joined += span.text;
  const std::string_view text = spans.size() == 1 ? spans[0].text : joined;
  Parts parts;
  size_t from = 0, end = 0;  // of the text that waits for the next special token
  for (const TextSpan& span : spans) {
    if (span.special) {
      const AddedToken* token = find_token(span.text);
      MT_CHECK(token);
      cut(text, from, end, Names::kOrdinary, parts);
      parts.push_back({end, end + span.text.size(), token});
      from = end + span.text.size();
    }
    end += span.text.size();
  }
  cut(text, from, end, Names::kOrdinary, parts);
  take_in_space(text, parts, false);
  count_marks(text, parts);
  parts = cut_normalized(text, parts, Names::kOrdinary);
  take_in_space(text, parts, true);
  EncodedSpans out;
  for (const Part& part : parts) {
    if (part.token) {
      out.ids.push_back(part.token->id);
      out.begins.push_back(part.begin);
    } else if (part.begin < part.end || part.marks > 0) {
      encode_stretch({text.substr(part.begin, part.end - part.begin), part.begin, part.marks}, out);
    }
  }
  return out;
}

std::vector<int32_t> SpanTokenizer::encode(std::string_view text) const {
  const TextSpan span{text};
  return encode_spans({&span, 1}).ids;
}

}  // namespace mixtune
