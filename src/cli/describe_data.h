// The report of `mixtune inspect` on indexed data and on a tokeniser; data_survey.h has that on a file of records.
#pragma once

#include <string>

namespace mixtune {

// Describes indexed data in lines of "name: value": type of a token, documents, sequences, tokens, lengths, and whether
// all tokens are trained.
std::string describe_indexed(const std::string& prefix);

// Describes the tokeniser in a folder or file, in such lines.
std::string describe_tokenizer(const std::string& path);

}  // namespace mixtune
