// SpanTokenizer: what all tokenisers do alike with spans and with special tokens.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/space_normalizer.h"
#include "data/tokenizer.h"

namespace mixtune {

// Finds names as tokenizers' AddedVocabulary does: first those that are not normalised. Then the text between two of
// them goes through the normaliser, and the others are found in the result.
class SpanTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text) const final;
  EncodedSpans encode_spans(std::span<const TextSpan> spans) const final;
  std::vector<TextSpan> split_special(std::string_view text) const final;
  std::optional<int32_t> special_id(std::string_view name) const final;
  std::vector<SpecialToken> special_tokens() const final;

 protected:
  // A part of a text between the names of tokens.
  struct Stretch {
    std::string_view text;
    size_t begin = 0;  // in the whole text
    size_t marks = 0;  // how many the normaliser puts before it
  };

  // Sets the added tokens, by ascending id, names and ids unique; `pieces` come before them. Sets vocab_size.
  void set_added_tokens(int32_t pieces, std::vector<AddedToken> tokens, SpaceNormalizer normalizer = {});
  const std::vector<AddedToken>& added_tokens() const { return tokens_; }
  const AddedToken* added_token(int32_t id) const;  // null: it is a piece
  const SpaceNormalizer& normalizer() const { return normalizer_; }

  // Appends the stretch's tokens. It has text, or marks.
  virtual void encode_stretch(const Stretch& stretch, EncodedSpans& out) const = 0;

 private:
  struct Part {
    size_t begin, end;                  // bytes of the whole text
    const AddedToken* token = nullptr;  // null: text
    size_t marks = 0;                   // how many the normaliser puts before it
  };
  using Parts = std::vector<Part>;
  enum class Names { kAll, kOrdinary };  // kOrdinary: names of special tokens are text

  const AddedToken* find_token(std::string_view name) const;
  void cut(std::string_view text, size_t begin, size_t end, Names names, Parts& parts) const;
  Parts cut_normalized(std::string_view text, const Parts& parts, Names names) const;
  void cut_marked(std::string_view text, const Part& part, Names names, Parts& parts) const;
  void take_in_space(std::string_view text, Parts& parts, bool normalized) const;
  void count_marks(std::string_view text, Parts& parts) const;

  int32_t pieces_ = 0;
  std::vector<AddedToken> tokens_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<int32_t, size_t> by_id_;
  SpaceNormalizer normalizer_;
  NameFinder finder_, normalized_finder_;
};

}  // namespace mixtune
