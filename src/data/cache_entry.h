// CacheEntry: one entry of the cache of tokenised data: a folder with an indexed data set and its seal.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "data/document_sink.h"
#include "data/documents.h"

namespace mixtune {

struct CacheEntry {
  std::shared_ptr<const Documents> documents;
  std::vector<LogRecord::Line> lines;  // lines logged when it was made
};

// The prefix of an entry's data set.
std::string entry_prefix(const std::string& folder);

// Writes the seal: what was put into `folder` under entry_prefix(folder), with sizes and the hash of the index, so that
// open_entry knows it again. Throws Error.
void seal_entry(const std::string& folder, const DocumentSink& documents, std::span<const LogRecord::Line> lines);

// Opens an entry. Throws Error where it is not whole: a file is missing, has another size, or the seal or the index
// another hash.
CacheEntry open_entry(const std::string& folder, int64_t vocab_size, int64_t max_seq_length);

}  // namespace mixtune
