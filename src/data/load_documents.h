// From data files to Documents.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/config.h"
#include "data/documents.h"
#include "data/text_encoder.h"

namespace mixtune {

// Whether any of `datasets`, whose paths are files, holds text rather than token ids (the first records of files tell,
// where the entry's format, and then `format`, is kAuto).
bool needs_tokenizer(std::span<const Dataset> datasets, DatasetFormat format);

// Reads, tokenises and cuts the records of `datasets`, whose paths are files, as `settings` say (max_seq_length at
// least 2), and logs one line of what it found and one of what it had to cut or drop. An entry's format goes before
// that of the settings. `encoder` may have no tokenizer where needs_tokenizer is false. Throws UserError, with file and
// line, for what is malformed or has an id outside [0, vocab_size), and where no target is left.
Documents load_documents(std::span<const Dataset> datasets, const DataSettings& settings, const TextEncoder& encoder,
                         int64_t vocab_size);

}  // namespace mixtune
