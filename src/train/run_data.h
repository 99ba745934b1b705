// The documents of a run: tokenised, cut, split.
#pragma once

#include "config/config.h"
#include "data/documents.h"
#include "model/mixtral_config.h"

namespace mixtune {

struct RunData {
  Documents train;
  Documents validation;  // empty where the run has none
};

// Reads what config trains on and validation_file, or splits the former, as config says.
RunData load_run_data(const Config& config, const MixtralConfig& shape);

// Reads `datasets`, whose paths are files, for a model of the given shape, with the tokeniser that config names where
// they hold text.
Documents load_model_documents(const std::vector<Dataset>& datasets, const Config& config, const MixtralConfig& shape);

}  // namespace mixtune
