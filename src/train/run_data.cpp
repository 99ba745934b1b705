#include "train/run_data.h"

#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/run_folder.h"
#include "data/load_documents.h"
#include "data/open_documents.h"
#include "data/validation_split.h"

namespace mixtune {

std::shared_ptr<const Documents> load_model_documents(const std::vector<std::string>& files, const Config& config,
                                                      const MixtralConfig& shape,
                                                      const std::function<void()>& advanced) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (needs_tokenizer(files, config.data.dataset_format)) {
    const std::string& named = config.model.tokenizer_name_or_path;
    tokenizer = open_tokenizer(named.empty() ? config.model.model_name_or_path : model_folder(named));
    if (tokenizer->vocab_size() > shape.vocab_size)
      throw UserError(tokenizer->path(),
                      fmt::format("the tokeniser has {} tokens, the model's vocab_size is {}", tokenizer->vocab_size(),
                                  shape.vocab_size),
                      "use the tokeniser that belongs to the model");
  }
  return open_documents(files, config, {.tokenizer = tokenizer.get(), .train_on_prompt = config.data.train_on_prompt},
                        shape.vocab_size, advanced);
}

RunData load_run_data(const Config& config, const MixtralConfig& shape, const std::function<void()>& advanced) {
  if (config.data.max_seq_length > shape.max_position_embeddings)
    log_warning("max_seq_length {} is beyond the model's max_position_embeddings, {}", config.data.max_seq_length,
                shape.max_position_embeddings);
  std::shared_ptr<const Documents> all = load_model_documents(config.data.train_file, config, shape, advanced);
  if (!config.data.validation_file.empty())
    return {all, load_model_documents({config.data.validation_file}, config, shape, advanced)};
  if (config.data.validation_split_percentage > 0) {
    Split split = split_validation(std::move(all), config.data.validation_split_percentage, config.run.seed);
    return {split.train, split.validation};
  }
  return {all, nullptr};
}

std::string RunData::digest() const {
  return fmt::format("{:x} {:x}", train->digest(), validation ? validation->digest() : 0);
}

}  // namespace mixtune
