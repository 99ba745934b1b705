// Tokenizer: sentencepiece's, as Mixtral's checkpoints bring it.
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
  // `path`: a folder that holds tokenizer.model, or such a file. Throws UserError where there is none, or it is not a
  // sound model with BOS and EOS.
  explicit Tokenizer(const std::string& path);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  const std::string& path() const { return path_; }  // of the model file
  int32_t vocab_size() const { return vocab_size_; }
  int32_t bos() const { return bos_; }
  int32_t eos() const { return eos_; }
  int32_t unk() const { return unk_; }

  // No BOS or EOS is added; text that spells a control token ("<s>") is encoded as text.
  std::vector<int32_t> encode(std::string_view text) const;
  // Control tokens decode to nothing. Ids must be in [0, vocab_size).
  std::string decode(std::span<const int32_t> ids) const;
  const std::string& piece(int32_t id) const;

 private:
  struct Model;  // keeps sentencepiece's header out of this one

  std::string path_;
  std::unique_ptr<Model> model_;
  int32_t vocab_size_ = 0, bos_ = -1, eos_ = -1, unk_ = -1;
};

}  // namespace mixtune
