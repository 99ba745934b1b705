#include "generate/text_stream.h"

#include <string_view>
#include <utility>

namespace mixtune {

namespace {

// What tokenizers decode a byte to that is of no whole character.
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::span<const int32_t> prompt)
    : tokenizer_(tokenizer), ids_(prompt.begin(), prompt.end()), given_(tokenizer.decode(ids_).size()) {}

std::string TextStream::add(int32_t id) {
  if (id >= tokenizer_.vocab_size()) return "";
  ids_.push_back(id);
  const std::string text = tokenizer_.decode(ids_);
  size_t end = text.size();
  while (std::string_view(text).substr(0, end).ends_with(kReplacement)) end -= kReplacement.size();
  return give(text, end);
}

std::string TextStream::finish() {
  const std::string text = tokenizer_.decode(ids_);
  return give(text, text.size());
}

std::string TextStream::give(const std::string& text, size_t end) {
  if (end <= given_) return "";
  const size_t begin = std::exchange(given_, end);
  return text.substr(begin, end - begin);
}

}  // namespace mixtune
