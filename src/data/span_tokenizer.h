// What all tokenisers do with spans and with their special tokens.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/tokenizer.h"

namespace mixtune {

class SpanTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text) const final;
  EncodedSpans encode_spans(std::span<const TextSpan> spans) const final;
  std::vector<TextSpan> split_special(std::string_view text) const final;
  std::optional<int32_t> special_id(std::string_view name) const final;

 protected:
  // A stretch of text that holds no token's name, or whose names are only text.
  struct Stretch {
    std::string_view text;  // not empty
    size_t begin = 0;       // in the whole text
  };

  // The names and ids are unique.
  void set_added_tokens(std::vector<AddedToken> tokens);
  const std::vector<AddedToken>& added_tokens() const { return tokens_; }
  const AddedToken* added_token(int32_t id) const;  // null: it is a piece

  // Appends the stretch's tokens.
  virtual void encode_stretch(const Stretch& stretch, EncodedSpans& out) const = 0;

 private:
  struct Part {
    size_t begin, end;                  // bytes of the whole text
    const AddedToken* token = nullptr;  // null: text
  };

  const AddedToken* find_token(std::string_view name) const;
  void cut(std::string_view text, size_t begin, size_t end, bool special, std::vector<Part>& parts) const;
  void encode_parts(std::string_view text, std::vector<Part>& parts, EncodedSpans& out) const;

  std::vector<AddedToken> tokens_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<int32_t, size_t> by_id_;
  NameFinder finder_;
};

}  // namespace mixtune
