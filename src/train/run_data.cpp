#include "train/run_data.h"

#include <memory>

#include "base/log.h"
#include "checkpoint/run_folder.h"
#include "data/load_documents.h"
#include "data/validation_split.h"
#include "train/model_tokenizer.h"

namespace mixtune {

Documents load_model_documents(const std::vector<std::string>& files, const Config& config,
                               const MixtralConfig& shape) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (needs_tokenizer(files, config.data.dataset_format)) {
    const std::string& named = config.model.tokenizer_name_or_path;
    tokenizer = open_model_tokenizer(named.empty() ? config.model.model_name_or_path : model_folder(named), shape);
  }
  return load_documents(files, config.data,
                        {.tokenizer = tokenizer.get(), .train_on_prompt = config.data.train_on_prompt},
                        shape.vocab_size);
}

RunData load_run_data(const Config& config, const MixtralConfig& shape) {
  if (config.data.max_seq_length > shape.max_position_embeddings)
    log_warning("max_seq_length {} is beyond the model's max_position_embeddings, {}", config.data.max_seq_length,
                shape.max_position_embeddings);
  Documents all = load_model_documents(config.data.train_file, config, shape);
  if (!config.data.validation_file.empty())
    return {std::move(all), load_model_documents({config.data.validation_file}, config, shape)};
  if (config.data.validation_split_percentage > 0) {
    Split split = split_validation(all, config.data.validation_split_percentage, config.run.seed);
    return {std::move(split.train), std::move(split.validation)};
  }
  return {std::move(all), {}};
}

}  // namespace mixtune
