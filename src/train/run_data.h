// The documents of a run: tokenised, cut, split.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/side_files.h"
#include "config/config.h"
#include "data/choose_template.h"
#include "data/documents.h"
#include "model/mixtral_config.h"

namespace mixtune {

struct RunData {
  Documents train;
  Documents validation;                              // empty where the run has none
  std::optional<ChosenTemplate> chat_template = {};  // none: there are no conversations
  TokenizerNames tokenizer_names = {};               // where there is a chat template
};

// Reads train_file and validation_file, or splits train_file, as config says.
RunData load_run_data(const Config& config, const MixtralConfig& shape);

// Reads `files` for a model of the given shape, with the tokeniser that config names where they hold text.
Documents load_model_documents(const std::vector<std::string>& files, const Config& config, const MixtralConfig& shape);

}  // namespace mixtune
