// open_sentencepiece_tokenizer: the tokeniser of a tokenizer.model, as Mixtral's checkpoints bring it.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace mixtune {

// `path` is the model file. Throws UserError where it is not a sound model with BOS and EOS.
std::unique_ptr<Tokenizer> open_sentencepiece_tokenizer(const std::string& path);

}  // namespace mixtune
