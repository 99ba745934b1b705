// Tokenizer: text to token ids and back. open_tokenizer makes the one that a folder holds.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mixtune {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  const std::string& path() const { return path_; }  // of the model file
  int32_t vocab_size() const { return vocab_size_; }
  int32_t bos() const { return bos_; }
  int32_t eos() const { return eos_; }
  int32_t unk() const { return unk_; }  // -1: none

  // No BOS or EOS is added; text that spells a control token ("<s>") is encoded as text.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // Control tokens decode to nothing. Ids must be in [0, vocab_size).
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  virtual std::string piece(int32_t id) const = 0;
  virtual std::string_view kind() const = 0;  // "sentencepiece"

 protected:
  Tokenizer() = default;

  std::string path_;
  int32_t vocab_size_ = 0, bos_ = -1, eos_ = -1, unk_ = -1;
};

// `path`: a folder that holds a tokeniser, or its file. Throws UserError where there is none, or it is not a sound one
// with BOS and EOS.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path);

}  // namespace mixtune
