// The tokeniser of a model, and whether it fits the model.
#pragma once

#include <memory>
#include <string>

#include "config/config.h"
#include "data/tokenizer.h"
#include "model/mixtral_config.h"

namespace mixtune {

// The folder, or file, of a run's tokeniser: `tokenizer_name_or_path`, else `model_name_or_path`, resolved as
// model_folder does. `say`: logs what model_folder logs.
std::string tokenizer_path(const ModelSettings& settings, bool say = true);

// The shape that a run gives to a model of the shape `model`: the same, unless `resize_vocabulary` is set. Then a
// tokeniser with more tokens than the model has rows gets exactly the rows it lacks (MixtralConfig::added_tokens); one
// with fewer changes nothing. Logs which. Throws as open_tokenizer does.
MixtralConfig resize_vocabulary(const ModelSettings& settings, const MixtralConfig& model);

// Throws UserError where the tokeniser has a token that the model has no row for; the model may have rows to spare.
// Warns where the model's BOS or EOS is another than the tokeniser's, with which transformers trains on.
void check_tokenizer(const Tokenizer& tokenizer, const MixtralConfig& model);

// Opens the tokeniser (open_tokenizer) and checks it (check_tokenizer).
std::unique_ptr<Tokenizer> open_model_tokenizer(const std::string& path, const MixtralConfig& model);

}  // namespace mixtune
