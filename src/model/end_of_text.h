// end_of_text_ids: the tokens at which a generated text ends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/mixtral_config.h"

namespace mixtune {

// The ids that config.json and, where there is one, FOLDER/generation_config.json give as eos_token_id (an id, a list
// of ids, or null), ascending. transformers reads the second file alone; here a token that either file names ends the
// text. Throws UserError for a generation_config.json that is malformed or has an id outside the vocabulary.
std::vector<int32_t> end_of_text_ids(const std::string& folder, const MixtralConfig& config);

}  // namespace mixtune
