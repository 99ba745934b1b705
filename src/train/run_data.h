// The documents of a run: tokenised, cut, split.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/side_files.h"
#include "config/config.h"
#include "data/blend_order.h"
#include "data/choose_template.h"
#include "data/documents.h"
#include "model/mixtral_config.h"

namespace mixtune {

struct RunData {
  std::shared_ptr<const Documents> train;
  std::shared_ptr<const Documents> validation;       // null where the run has none
  std::vector<BlendPart> blend = {};                 // of `train`, where the entries of `datasets` have weights
  std::optional<ChosenTemplate> chat_template = {};  // none: there are no conversations
  TokenizerNames tokenizer_names = {};               // where there is a chat template

  std::string digest() const;  // of both
};

// Reads what config trains on and validation_file, or splits the former, as config says (open_documents). Where a split
// has no weight for validation there is none.
RunData load_run_data(const Config& config, const MixtralConfig& shape, const std::function<void()>& advanced = {});

// Reads `datasets`, whose paths are files, for a model of the given shape, with the tokeniser that config names where
// they hold text.
std::shared_ptr<const Documents> load_model_documents(const std::vector<Dataset>& datasets, const Config& config,
                                                      const MixtralConfig& shape,
                                                      const std::function<void()>& advanced = {});

}  // namespace mixtune
