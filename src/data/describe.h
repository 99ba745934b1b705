// What `mixtune inspect` says of indexed data and of a tokeniser; of a file of records data_survey.h has it.
#pragma once

#include <string>

namespace mixtune {

// Lines of "name: value" of indexed data: type of a token, documents, sequences, tokens, lengths, and whether all
// tokens are trained.
std::string describe_indexed(const std::string& prefix);

// The same of the tokeniser in a folder or file.
std::string describe_tokenizer(const std::string& path);

}  // namespace mixtune
