// The tokeniser of a model, and whether the two fit.
#pragma once

#include <memory>
#include <string>

#include "config/config.h"
#include "data/tokenizer.h"
#include "model/mixtral_config.h"

namespace mixtune {

// The folder, or file, of a run's tokeniser: `tokenizer_name_or_path`, else `model_name_or_path`, as model_folder has
// it.
std::string tokenizer_path(const ModelSettings& settings, bool say = true);

// The shape that a run gives to a model of the shape `model`: this one, but for `resize_vocabulary`. Then a tokeniser
// with more tokens than the model has rows gets rows for them (MixtralConfig::added_tokens), and no more; one with
// fewer changes nothing. Says which in a line. Throws as open_tokenizer does.
MixtralConfig resize_vocabulary(const ModelSettings& settings, const MixtralConfig& model);

// Throws UserError where the tokeniser has a token that the model has no row for. Warns where BOS or EOS of the two
// differ, with which transformers trains on. A model may have more rows than the tokeniser has tokens.
void check_tokenizer(const Tokenizer& tokenizer, const MixtralConfig& model);

// open_tokenizer, and check_tokenizer.
std::unique_ptr<Tokenizer> open_model_tokenizer(const std::string& path, const MixtralConfig& model);

}  // namespace mixtune
