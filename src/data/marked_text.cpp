#include "data/marked_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/batch.h"
#include "data/label.h"
#include "data/space_normalizer.h"

namespace mixtune {

namespace {

constexpr size_t kMost = 2000;  // bytes of a stretch

// The text of ordinary tokens side by side. A space before their first word counts, unless it begins the document.
std::string text_of(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool is_first) {
  if (ids.empty()) return "";
  const bool spaced = !is_first && tokenizer.piece(ids.front()).starts_with(kSpaceMark);
  const std::string text = tokenizer.decode(ids);
  return printable(spaced && !text.starts_with(' ') ? " " + text : text, kMost);
}

}  // namespace

std::string marked_text(const Tokenizer& tokenizer, const TokenSequence& document, bool colour) {
  std::string text;
  std::vector<int32_t> ordinary;
  bool trained = false;
  const auto flush = [&] {
    text += text_of(tokenizer, ordinary, text.empty());
    ordinary.clear();
  };
  const auto mark = [&](bool on) {
    if (on == trained) return;
    flush();
    trained = on;
    text += on ? (colour ? "\x1b[32m" : "[[") : (colour ? "\x1b[0m" : "]]");
  };
  for (size_t i = 0; i < document.ids.size() && text.size() < kMost; ++i) {
    const int32_t id = document.ids[i];
    mark(document.labels[i] != kIgnoreTarget);
    const bool known = id >= 0 && id < tokenizer.vocab_size();
    const std::string piece = known ? tokenizer.piece(id) : fmt::format("<{}>", id);
    if (known && tokenizer.special_id(piece) != id) {
      ordinary.push_back(id);
      continue;
    }
    flush();
    text += printable(piece);
  }
  mark(false);
  flush();
  return text;
}

}  // namespace mixtune
