// The work of `mixtune preprocess` on loaded documents: writes them, and shows them.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "data/documents.h"
#include "data/tokenizer.h"

namespace mixtune {

// Writes format `tokenized`, a document a line, and an empty one for a record without a document, so that a validation
// split takes the same records; load_documents reads the same Documents back. `path` appears when all of it is on disk,
// or not at all.
void write_tokenized(const Documents& documents, const std::string& path, bool overwrite);

// Writes indexed data (data/indexed_files.h): a document is a sequence, a record a document of Megatron's. Ids are in
// [0, vocab_size). Throws UserError for a label that is neither kIgnoreTarget nor its token.
void write_indexed(const Documents& documents, const std::string& prefix, int64_t vocab_size, bool overwrite);

// Prints the first `samples` documents, a token a line: position, id, label, weight of weighted data, piece.
// `tokenizer` may be null: no pieces.
void print_samples(const Documents& documents, const Tokenizer* tokenizer, int64_t samples, std::FILE* to);

}  // namespace mixtune
