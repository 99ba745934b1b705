// What `mixtune inspect` says of a data file and of a tokeniser.
#pragma once

#include <string>

#include "config/config.h"
#include "data/text_encoder.h"

namespace mixtune {

// Lines of "name: value": format, records, the first record's keys and, where there is a tokenizer (or the file needs
// none), tokens, targets and lengths. Reads the whole file and throws like load_documents.
std::string describe_data_file(const std::string& path, DatasetFormat format, const TextEncoder& encoder);

// The same of indexed data: type of a token, documents, sequences, tokens, lengths, and whether all tokens are trained.
std::string describe_indexed(const std::string& prefix);

// The same of the tokeniser in a folder or file.
std::string describe_tokenizer(const std::string& path);

}  // namespace mixtune
