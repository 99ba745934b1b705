#include "train/model_tokenizer.h"

#include <fmt/format.h>

#include <optional>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

void warn_of_other(const Tokenizer& tokenizer, const char* what, int32_t id, std::optional<int64_t> of_model) {
  if (!of_model || *of_model == id) return;
  const std::string theirs = *of_model < tokenizer.vocab_size()
                                 ? printable(tokenizer.piece(static_cast<int32_t>(*of_model)))
                                 : "no token of it";
  log_warning("{}: {} is {} ({}), config.json of the model says {} ({}); the tokeniser's is used",
              printable(tokenizer.path(), 200), what, id, printable(tokenizer.piece(id)), *of_model, theirs);
}

}  // namespace

void check_tokenizer(const Tokenizer& tokenizer, const MixtralConfig& model) {
  const std::string where = printable(tokenizer.path(), 200);
  if (tokenizer.vocab_size() > model.vocab_size) {
    const auto first = static_cast<int32_t>(model.vocab_size);  // of the tokens that have no row
    const std::string name = tokenizer.piece(first);
    if (tokenizer.special_id(name) == first)
      throw UserError(where,
                      fmt::format("the added token '{}' has the id {}, beyond the model's vocab_size {}",
                                  printable(name), first, model.vocab_size),
                      "resize the model's embeddings first (transformers: model.resize_token_embeddings), or use the "
                      "tokeniser that belongs to the model");
    throw UserError(where,
                    fmt::format("the tokeniser has {} tokens, the model's vocab_size is {}", tokenizer.vocab_size(),
                                model.vocab_size),
                    "use the tokeniser that belongs to the model");
  }
  warn_of_other(tokenizer, "BOS", tokenizer.bos(), model.bos_token_id);
  warn_of_other(tokenizer, "EOS", tokenizer.eos(), model.eos_token_id);
}

std::unique_ptr<Tokenizer> open_model_tokenizer(const std::string& path, const MixtralConfig& model) {
  std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(path);
  check_tokenizer(*tokenizer, model);
  return tokenizer;
}

}  // namespace mixtune
