// SpaceNormalizer: prepares a text as Mistral's kind of tokenizer.json asks: spaces become U+2581, and one goes before.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// A list of tokenizers' normalisers of this kind, applied one after the other.
class SpaceNormalizer {
 public:
  enum class Step {
    kPrepend,        // Prepend U+2581, to a text that is not empty
    kReplaceSpaces,  // Replace " " by U+2581
    kDoubleFirst,    // Replace the U+2581 that the text begins with by two
  };

  SpaceNormalizer() = default;
  explicit SpaceNormalizer(std::vector<Step> steps);

  bool replaces_spaces() const { return replaces_spaces_; }
  size_t prefix(std::string_view text) const;  // how many marks are put before `text`

 private:
  std::vector<Step> steps_;
  bool replaces_spaces_ = false;
};

// A text with marks before it and for its spaces, which knows the byte of the text that each of its bytes is from.
class MarkedText {
 public:
  MarkedText(std::string_view text, size_t prefix, bool replaces_spaces);

  const std::string& marked() const { return marked_; }

  // The byte of the text that byte `at` of marked() is from, 0 for the marks before it. Calls must go upwards.
  size_t begin_of(size_t at);

 private:
  std::string_view text_;
  bool replaces_spaces_;
  std::string marked_;
  size_t at_ = 0, from_ = 0;  // a place in marked(), and in the text
};

}  // namespace mixtune
