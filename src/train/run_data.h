// RunData: the documents of a run, tokenised, cut and split.
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
#include "data/window_data.h"
#include "model/mixtral_config.h"

namespace mixtune {

// What is evaluated by itself; "": it has no name, and is alone.
struct ValidationDocuments {
  std::string name;
  std::shared_ptr<const Documents> documents;
};

struct RunData {
  std::shared_ptr<const Documents> train;            // null where rows are windows
  std::vector<ValidationDocuments> validation;       // empty where the run has none
  WindowSets windows = {};                           // in place of both
  std::vector<BlendPart> blend = {};                 // `train` by the weights of `datasets`; empty: they have none
  std::optional<ChosenTemplate> chat_template = {};  // none: there are no conversations
  TokenizerNames tokenizer_names = {};               // where there is a chat template

  std::vector<std::string> evaluations() const;  // the names of what is evaluated, each by itself
  std::string digest() const;                    // of all
  std::string training_digest() const;           // of what is trained
};

// Reads what config trains on, and validation_file or a part split off, as config says (open_documents). Where no split
// has weight for validation there is none.
// `advanced` is called as it goes on.
RunData load_run_data(const Config& config, const MixtralConfig& shape, const std::function<void()>& advanced = {});

// Reads validation_file alone, as the run's validation.
RunData load_validation_data(const Config& config, const MixtralConfig& shape,
                             const std::function<void()>& advanced = {});

}  // namespace mixtune
