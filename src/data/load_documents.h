// From data files to Documents.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/config.h"
#include "data/documents.h"
#include "data/text_encoder.h"

namespace mixtune {

// Whether any of `files` holds text rather than token ids (their first records tell, where `format` is kAuto).
bool needs_tokenizer(std::span<const std::string> files, DatasetFormat format);

// Whether any of `files` holds conversations, as needs_tokenizer tells.
bool needs_chat_template(std::span<const std::string> files, DatasetFormat format);

// Reads, tokenises and cuts the records of `files` as `settings` say (max_seq_length at least 2), and logs one line of
// what it found and one of what it had to cut or drop. `encoder` may have no tokenizer where needs_tokenizer is false.
// Throws UserError, with file and line, for what is malformed or has an id outside [0, vocab_size), and where no target
// is left.
Documents load_documents(std::span<const std::string> files, const DataSettings& settings, const TextEncoder& encoder,
                         int64_t vocab_size);

}  // namespace mixtune
