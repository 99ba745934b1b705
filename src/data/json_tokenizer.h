// open_json_tokenizer: the tokeniser of a tokenizer.json of Mistral's kind.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace mixtune {

// `path` is the file. BOS and EOS are those of tokenizer_config.json beside it, else <s> and </s>. Throws UserError
// where it is not sound, or not of this kind, or has no BOS and EOS.
std::unique_ptr<Tokenizer> open_json_tokenizer(const std::string& path);

}  // namespace mixtune
