#include "train/model_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/run_folder.h"

namespace mixtune {

namespace {

// `of_model`: the model's ids; any of them will do.
void warn_of_other(const Tokenizer& tokenizer, const char* what, int32_t id, std::span<const int32_t> of_model) {
  if (of_model.empty() || std::ranges::find(of_model, id) != of_model.end()) return;
  const int32_t other = of_model.front();
  const std::string theirs =
      other < tokenizer.vocab_size() ? printable(tokenizer.piece(other)) : std::string("no token of it");
  log_warning("{}: {} is {} ({}), config.json of the model says {} ({}); the tokeniser's is used",
              printable(tokenizer.path(), 200), what, id, printable(tokenizer.piece(id)), other, theirs);
}

}  // namespace

std::string tokenizer_path(const ModelSettings& settings, bool say) {
  const std::string& named = settings.tokenizer_name_or_path;
  return model_folder(named.empty() ? settings.model_name_or_path : named, say);
}

MixtralConfig resize_vocabulary(const ModelSettings& settings, const MixtralConfig& model) {
  if (!settings.resize_vocabulary) return model;
  const int64_t tokens = open_tokenizer(tokenizer_path(settings, false))->vocab_size();
  if (tokens <= model.vocab_size) {
    log_info("vocabulary: {}, nothing to resize: the tokeniser has {} tokens", model.vocab_size, tokens);
    return model;
  }
  MixtralConfig resized = model;
  resized.vocab_size = tokens;
  resized.added_tokens = tokens - model.vocab_size;
  log_info("vocabulary: {} -> {}, new rows are the mean of the old", model.vocab_size, tokens);
  return resized;
}

void check_tokenizer(const Tokenizer& tokenizer, const MixtralConfig& model) {
  const std::string where = printable(tokenizer.path(), 200);
  if (tokenizer.vocab_size() > model.vocab_size) {
    const auto first = static_cast<int32_t>(model.vocab_size);  // the first token without a row
    throw UserError(
        where,
        fmt::format("its token '{}' has the id {}, and the model's vocab_size is {} (tokens without a row: {})",
                    printable(tokenizer.piece(first)), first, model.vocab_size,
                    tokenizer.vocab_size() - model.vocab_size),
        "train with resize_vocabulary: true, which adds rows, or use the tokeniser that belongs to the "
        "model");
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
