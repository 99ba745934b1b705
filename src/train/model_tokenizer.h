// The tokeniser of a model, and whether the two fit.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"
#include "model/mixtral_config.h"

namespace mixtune {

// Throws UserError where the tokeniser has a token that the model has no row for. Warns where BOS or EOS of the two
// differ, with which transformers trains on. A model may have more rows than the tokeniser has tokens.
void check_tokenizer(const Tokenizer& tokenizer, const MixtralConfig& model);

// open_tokenizer, and check_tokenizer.
std::unique_ptr<Tokenizer> open_model_tokenizer(const std::string& path, const MixtralConfig& model);

}  // namespace mixtune
