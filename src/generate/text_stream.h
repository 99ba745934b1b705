// TextStream: the text that tokens say, as they come.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace mixtune {

// The pieces that it gives, joined, are the text that follows the prompt, with the space that may part it from that.
class TextStream {
 public:
  // An empty prompt: the text is one of its own. The tokenizer outlives the stream.
  TextStream(const Tokenizer& tokenizer, std::span<const int32_t> prompt);

  // Adds a token, and returns the piece of text that is sure by now. What a token says of a character that is not
  // whole yet is held back; one that the tokenizer lacks, of a padded vocabulary, says nothing.
  std::string add(int32_t id);
  // What was held back: a replacement character for each byte of no character.
  std::string finish();

 private:
  // The text from what was given on, to its byte `end`.
  std::string give(const std::string& text, size_t end);

  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  size_t given_;  // bytes of the text, the prompt's included
};

}  // namespace mixtune
