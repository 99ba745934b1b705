// From data files to Documents.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/config.h"
#include "data/memory_documents.h"
#include "data/text_encoder.h"

namespace mixtune {

// Of these functions, the paths of `datasets` are files of records, or name indexed data (data/indexed_files.h), whose
// sequences are documents and whose documents are records. An entry's format and template go before those of the
// settings.

// Whether any of `datasets` holds text rather than token ids: the first records of their files tell.
bool needs_tokenizer(std::span<const Dataset> datasets, DatasetFormat format);

// Whether any of `datasets` holds conversations, as needs_tokenizer tells.
bool needs_chat_template(std::span<const Dataset> datasets, DatasetFormat format);

// Reads, tokenises and cuts the records of `datasets` as `settings` say (max_seq_length at least 2), appends them to
// `documents`, and logs one line of what it found and one of what it had to cut or drop. `encoder` may have no
// tokenizer where needs_tokenizer is false. Throws UserError, with file and line, for what is malformed or has an id
// outside [0, vocab_size), and where no target is left. Of the data a block of lines at a time is in memory.
void load_documents(std::span<const Dataset> datasets, const DataSettings& settings, const TextEncoder& encoder,
                    int64_t vocab_size, DocumentSink& documents);
// The same in memory.
MemoryDocuments load_documents(std::span<const Dataset> datasets, const DataSettings& settings,
                               const TextEncoder& encoder, int64_t vocab_size);

}  // namespace mixtune
