// Tokenizer: text to token ids and back. open_tokenizer makes the one that a folder holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

// A stretch of a text.
struct TextSpan {
  std::string_view text;
  bool special = false;  // `text` is the name of a token, and becomes that token
};

struct EncodedSpans {
  std::vector<int32_t> ids;
  std::vector<size_t> begins;  // each token's first byte in the spans' texts, one after the other; ascending
};

// A token that stands in texts under its name.
struct SpecialToken {
  std::string name;
  int32_t id = -1;
  bool special = false;  // false: an added word, found in every text
  bool added = false;    // not one of the pieces
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  const std::string& path() const { return path_; }   // of the model file
  int32_t vocab_size() const { return vocab_size_; }  // counts added tokens
  int32_t bos() const { return bos_; }
  int32_t eos() const { return eos_; }
  int32_t unk() const { return unk_; }  // -1: none

  // Adds no BOS or EOS; text that spells a special token ("<s>") stays text. Any number of threads may call this.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // Encodes the spans as one text, as transformers does. Neighbours that are not special are encoded together; what
  // they begin with (a space put before them) depends on where they stand; and a special token takes in the white space
  // beside it where its lstrip or rstrip says so. A token that is one byte of a character begins where the character
  // does.
  virtual EncodedSpans encode_spans(std::span<const TextSpan> spans) const = 0;
  // Parts `text` into the names of special tokens in it, the longest first, and the text between them: encode_spans
  // makes of these what transformers gives for `text`. The results are views of `text`.
  virtual std::vector<TextSpan> split_special(std::string_view text) const = 0;
  // The id of the control or added token of this name.
  virtual std::optional<int32_t> special_id(std::string_view name) const = 0;
  virtual std::vector<SpecialToken> special_tokens() const = 0;  // also added ones, by ascending id
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  virtual std::string piece(int32_t id) const = 0;
  virtual std::string_view kind() const = 0;  // "sentencepiece" or "tokenizer.json"

 protected:
  Tokenizer() = default;

  std::string path_;
  int32_t vocab_size_ = 0, bos_ = -1, eos_ = -1, unk_ = -1;
};

// Opens `path`: a folder that holds a tokeniser, or its file: tokenizer.json, or sentencepiece's tokenizer.model. Where
// a folder has both, the first is used, as by transformers, and both must have the same pieces. Tokens that
// tokenizer_config.json, added_tokens.json and special_tokens_map.json beside the file add are a part of it. Throws
// UserError where there is none, or it is not a sound one with BOS and EOS.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path);

}  // namespace mixtune
