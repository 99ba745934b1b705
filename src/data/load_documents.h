// Loads Documents from data files.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "config/config.h"
#include "data/memory_documents.h"
#include "data/text_encoder.h"

namespace mixtune {

// In these functions the paths of `datasets` are files of records, or name indexed data (data/indexed_files.h), whose
// sequences are documents and whose documents are records. An entry's format and template go before the settings'.

// Whether any of `datasets` holds text rather than token ids, as the first records of their files tell.
bool needs_tokenizer(std::span<const Dataset> datasets, DatasetFormat format);

// Whether any of `datasets` holds conversations, as needs_tokenizer tells.
bool needs_chat_template(std::span<const Dataset> datasets, DatasetFormat format);

// Reads, tokenises and cuts the records of `datasets` as `settings` say (max_seq_length at least 2), and appends them
// to `documents`. Logs one line of what it found and one of what it had to cut or drop. `encoder` may have no tokenizer
// where needs_tokenizer is false. Throws UserError, with file and line, for what is malformed or has an id outside [0,
// vocab_size), and where no target is left. Only a block of lines is in memory at a time.
void load_documents(std::span<const Dataset> datasets, const DataSettings& settings, const TextEncoder& encoder,
                    int64_t vocab_size, DocumentSink& documents);
// Loads the documents into memory.
MemoryDocuments load_documents(std::span<const Dataset> datasets, const DataSettings& settings,
                               const TextEncoder& encoder, int64_t vocab_size);

}  // namespace mixtune
