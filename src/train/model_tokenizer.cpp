#include "train/model_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/log.h"

namespace mixtune {

namespace {

// `of_model`: any of these is as good.
void warn_of_other(const Tokenizer& tokenizer, const char* what, int32_t id, std::span<const int32_t> of_model) {
  if (of_model.empty() || std::ranges::find(of_model, id) != of_model.end()) return;
  const int32_t other = of_model.front();
  const std::string theirs =
      other < tokenizer.vocab_size() ? printable(tokenizer.piece(other)) : std::string("no token of it");
  log_warning("{}: {} is {} ({}), config.json of the model says {} ({}); the tokeniser's is used",
              printable(tokenizer.path(), 200), what, id, printable(tokenizer.piece(id)), other, theirs);
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
  if (model.bos_token_id) {
    const auto bos = static_cast<int32_t>(*model.bos_token_id);
    warn_of_other(tokenizer, "BOS", tokenizer.bos(), {&bos, 1});
  }
  warn_of_other(tokenizer, "EOS", tokenizer.eos(), model.eos_token_ids);
}

std::unique_ptr<Tokenizer> open_model_tokenizer(const std::string& path, const MixtralConfig& model) {
  std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(path);
  check_tokenizer(*tokenizer, model);
  return tokenizer;
}

}  // namespace mixtune
